//! `osb config`: the configuration file.

use std::{io::Write, path::Path, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::Subcommand;

use crate::{
    cli::Globals,
    connection::{self, Source},
    output::{Printer, notice},
};

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Write a configuration file to start from
    Init {
        /// Replace the one that is there
        #[arg(long)]
        force: bool,
    },
    /// Show every setting and where it comes from
    Show,
    /// Change a setting, e.g. connection.domain localhost:8088
    Set {
        /// SECTION.NAME
        key: String,
        /// The value
        value: String,
    },
}

const TEMPLATE: &str = r#"# Settings of osb. Flags win over the environment, the environment over this file.

[connection]
# api_key = "..."
# domain = "127.0.0.1:8088"
# protocol = "http"
# request_timeout = 30
# use_server_proxy = false

[output]
# color = true

[defaults]
# image = "python:3.12"
# timeout = "10m"  # "none" lives until it is killed
"#;

/// The settings there are.
const KEYS: [&str; 8] = [
    "connection.api_key",
    "connection.domain",
    "connection.protocol",
    "connection.request_timeout",
    "connection.use_server_proxy",
    "output.color",
    "defaults.image",
    "defaults.timeout",
];

/// Runs a verb.
pub fn run(globals: &Globals, verb: Verb) -> Result<ExitCode> {
    let printer = Printer::structured(globals.output)?;
    let path = connection::config_path(globals)?;
    match verb {
        Verb::Init { force } => {
            if path.exists() && !force {
                // What was asked for is there; scripts call this every time.
                notice(&format!("{} exists and was left as it is; replace it with --force", path.display()))?;
                return Ok(ExitCode::SUCCESS);
            }
            write(&path, TEMPLATE)?;
            printer.done(&format!("wrote {}", path.display()))?;
        }
        Verb::Show => show(globals, printer, &path)?,
        Verb::Set { key, value } => {
            set(&path, &key, &value)?;
            printer.done(&format!("set {key} in {}", path.display()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(globals: &Globals, printer: Printer, path: &Path) -> Result<()> {
    let resolved = connection::resolve(globals)?;
    let key = resolved.api_key.0.as_deref().map(masked);
    let exists = path.exists();
    let whole = serde_json::json!({
        "api_key": key,
        "domain": resolved.domain.0,
        "protocol": resolved.protocol.0,
        "request_timeout": resolved.request_timeout.0,
        "use_server_proxy": resolved.use_server_proxy.0,
        "default_image": resolved.defaults.image,
        "default_timeout": resolved.defaults.timeout,
        "config_path": path,
        "config_file_exists": exists,
    });
    let from = |value: String, source: Source| format!("{value} ({source})");
    let missing = if exists { "" } else { " (not there)" };
    printer.object(
        &whole,
        &[
            ("domain", from(resolved.domain.0.clone(), resolved.domain.1)),
            ("protocol", from(resolved.protocol.0.clone(), resolved.protocol.1)),
            ("api_key", from(key.unwrap_or_else(|| "none".to_owned()), resolved.api_key.1)),
            ("request_timeout", from(format!("{} s", resolved.request_timeout.0), resolved.request_timeout.1)),
            ("use_server_proxy", from(resolved.use_server_proxy.0.to_string(), resolved.use_server_proxy.1)),
            ("default_image", resolved.defaults.image.clone().unwrap_or_else(|| "none".to_owned())),
            ("default_timeout", resolved.defaults.timeout.unwrap_or_else(|| "none".to_owned())),
            ("config_path", format!("{}{missing}", path.display())),
        ],
    )
}

/// Enough of a key to tell two apart, and no more.
fn masked(key: &str) -> String {
    let chars: Vec<char> = key.chars().collect();
    if chars.len() < 12 {
        return "****".to_owned();
    }
    let (head, tail): (String, String) = (chars[..2].iter().collect(), chars[chars.len() - 2..].iter().collect());
    format!("{head}****{tail}")
}

fn set(path: &Path, key: &str, value: &str) -> Result<()> {
    let Some((section, name)) = key.split_once('.').filter(|_| KEYS.contains(&key)) else {
        bail!("there is no setting {key:?}; there are {}", KEYS.join(", "));
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => TEMPLATE.to_owned(),
        Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
    };
    let mut document: toml_edit::DocumentMut =
        text.parse().with_context(|| format!("{} is no TOML", path.display()))?;
    let typed = match key {
        "connection.request_timeout" => toml_edit::value(
            value.parse::<f64>().ok().filter(|t| *t > 0.0).context("the request timeout must be seconds above 0")?,
        ),
        "connection.use_server_proxy" | "output.color" => {
            toml_edit::value(value.parse::<bool>().context("the value must be true or false")?)
        }
        "connection.protocol" if !matches!(value, "http" | "https") => bail!("the protocol must be http or https"),
        _ => toml_edit::value(value),
    };
    let table = document.entry(section).or_insert_with(toml_edit::table);
    let Some(table) = table.as_table_like_mut() else { bail!("{section} in {} is no section", path.display()) };
    table.insert(name, typed);
    write(path, &document.to_string())
}

/// Replaces the file as a whole, readable by its owner only, for it may hold a key.
fn write(path: &Path, text: &str) -> Result<()> {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = || format!("{} cannot be written", path.display());
    std::fs::create_dir_all(directory).with_context(failed)?;
    let mut file = tempfile::NamedTempFile::new_in(directory).with_context(failed)?;
    file.write_all(text.as_bytes()).with_context(failed)?;
    file.persist(path).with_context(failed)?;
    Ok(())
}
