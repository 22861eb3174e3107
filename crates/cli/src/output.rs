//! Results on standard output: tables for people, JSON and YAML for programs.

use std::io::{IsTerminal, Write};

use anyhow::{Result, bail};
use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets::NOTHING};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
    Yaml,
    Raw,
}

/// Prints results in one format.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    format: Format,
}

impl Printer {
    /// In the format that was asked for, if it is one of `table`, `json` and `yaml`.
    pub fn structured(format: Option<Format>) -> Result<Self> {
        match format.unwrap_or(Format::Table) {
            Format::Raw => bail!(Unsupported { asked: Format::Raw, allowed: "table, json or yaml" }),
            format => Ok(Self { format }),
        }
    }

    /// Prints a list: as a table of the rows that `row` gives, or whole.
    pub fn list<T: Serialize>(
        self,
        whole: &impl Serialize,
        items: &[T],
        header: &[&str],
        row: impl Fn(&T) -> Vec<String>,
        empty: &str,
    ) -> Result<()> {
        match self.format {
            Format::Table if items.is_empty() => notice(empty),
            Format::Table => {
                let mut table = plain_table();
                table.set_header(header.to_vec());
                table.add_rows(items.iter().map(row));
                print_table(&table)
            }
            _ => self.value(whole),
        }
    }

    /// Prints one thing: as lines of key and value, or whole.
    pub fn object(self, whole: &impl Serialize, rows: &[(&str, String)]) -> Result<()> {
        match self.format {
            Format::Table => {
                let mut table = plain_table();
                table.add_rows(rows.iter().map(|(key, value)| vec![(*key).to_owned(), value.clone()]));
                print_table(&table)
            }
            _ => self.value(whole),
        }
    }

    /// Prints that something was done: a sentence, or an object of status and message.
    pub fn done(self, message: &str) -> Result<()> {
        match self.format {
            Format::Table => line(message),
            _ => self.value(&serde_json::json!({ "status": "ok", "message": message })),
        }
    }

    pub fn value(self, value: &impl Serialize) -> Result<()> {
        let text = match self.format {
            Format::Yaml => serde_saphyr::to_string(value)?,
            _ => serde_json::to_string_pretty(value)?,
        };
        line(text.trim_end())
    }
}

/// A format that a verb does not have.
#[derive(Debug, thiserror::Error)]
#[error("this verb prints {allowed}, not {}", .asked.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default())]
pub struct Unsupported {
    asked: Format,
    allowed: &'static str,
}

/// Refuses every format but `raw`.
pub fn only_raw(format: Option<Format>) -> Result<()> {
    match format {
        None | Some(Format::Raw) => Ok(()),
        Some(asked) => bail!(Unsupported { asked, allowed: "raw output only" }),
    }
}

/// Prints a line on standard output.
pub fn line(text: &str) -> Result<()> {
    let mut out = anstream::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Prints a line for people on standard error.
pub fn notice(text: &str) -> Result<()> {
    let mut err = anstream::stderr().lock();
    writeln!(err, "{text}")?;
    Ok(())
}

pub fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table
}

pub fn print_table(table: &Table) -> Result<()> {
    // The style pads each cell on both sides; the page needs no margin.
    let text: Vec<_> =
        table.lines().map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned()).collect();
    line(&text.join("\n"))
}

/// A sign of life on a terminal while something takes its time.
pub fn spinner(message: &str) -> ProgressBar {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    bar.set_message(message.to_owned());
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    bar
}

/// Progress of a transfer, on a terminal.
pub fn transfer(size: Option<u64>, name: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match size {
        Some(size) => (ProgressBar::new(size), "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}"),
        None => (ProgressBar::new_spinner(), "{spinner} {msg} {bytes} {bytes_per_sec}"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(name.to_owned());
    bar
}
