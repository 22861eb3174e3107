//! What was made: a table for people, JSON for programs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::BinaryBytes;
use serde::{Deserialize, Serialize};

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table.
    Table,
    /// One JSON array.
    Json,
}

/// One image, as it was made.
#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Made {
    /// `execd` and so on.
    pub name: String,
    /// All names it goes by.
    pub references: Vec<String>,
    /// Digest of its manifest.
    pub digest: String,
    /// `linux/amd64` and so on.
    pub platform: String,
    /// UID and GID it runs as.
    pub user: String,
    /// Bytes that a registry transfers.
    pub size: u64,
    /// Bytes of its files.
    pub unpacked: u64,
    /// The archive.
    pub archive: PathBuf,
    /// Its parts list, CycloneDX.
    pub sbom: PathBuf,
    /// Where it was pushed to, with its digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pushed: Option<String>,
}

/// The file beside the archives that says what was made.
const FILE: &str = "images.json";

/// Writes what was made beside the archives, for the chart.
pub fn write(made: &[Made], out: &Path) -> Result<()> {
    let path = out.join(FILE);
    std::fs::write(&path, serde_json::to_vec_pretty(made)?).with_context(|| format!("cannot write {}", path.display()))
}

/// Reads what was made last.
pub fn read_made(out: &Path) -> Result<Vec<Made>> {
    let path = out.join(FILE);
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is malformed", path.display()))
}

/// Prints what was made.
pub fn print(made: &[Made], format: Format) -> Result<()> {
    match format {
        Format::Json => println!("{}", serde_json::to_string_pretty(made)?),
        Format::Table => {
            let mut table = Table::new();
            table.load_style(presets::NOTHING).set_header(["IMAGE", "PLATFORM", "USER", "SIZE", "UNPACKED", "DIGEST"]);
            for image in made {
                for (index, reference) in image.references.iter().enumerate() {
                    let alias = index > 0;
                    let once = |text: String| if alias { String::new() } else { text };
                    table.add_row([
                        reference.clone(),
                        once(image.platform.clone()),
                        once(image.user.clone()),
                        once(BinaryBytes(image.size).to_string()),
                        once(BinaryBytes(image.unpacked).to_string()),
                        once(image.digest.clone()),
                    ]);
                }
            }
            for index in [3, 4] {
                if let Some(column) = table.column_mut(index) {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
            // The style pads each cell on both sides; the page needs no margin.
            for line in table.lines() {
                println!("{}", line.strip_prefix(' ').unwrap_or(&line).trim_end());
            }
        }
    }
    Ok(())
}
