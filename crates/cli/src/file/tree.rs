//! `osb file rm`, `mv`, `mkdir`, `rmdir`, `search`, `info`, `chmod` and `replace`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use opensandbox::{
    Client,
    types::{FileInfo, FileType},
};
use serde_json::json;

use super::Permissions;
use crate::output::{Format, Printer};

/// Some paths.
#[derive(Debug, Args)]
pub struct Paths {
    /// Id of the sandbox
    id: String,
    /// Paths in the sandbox
    #[arg(required = true)]
    paths: Vec<String>,
}

/// Options of `osb file mv`.
#[derive(Debug, Args)]
pub struct Move {
    /// Id of the sandbox
    id: String,
    /// From
    source: String,
    /// To
    destination: String,
}

/// Options of `osb file mkdir`.
#[derive(Debug, Args)]
pub struct Mkdir {
    #[command(flatten)]
    paths: Paths,
    #[command(flatten)]
    permissions: Permissions,
}

/// Options of `osb file search`.
#[derive(Debug, Args)]
pub struct Search {
    /// Id of the sandbox
    id: String,
    /// Directory to search
    path: String,
    /// Pattern of the names, e.g. '*.py'
    #[arg(short, long)]
    pattern: String,
}

/// Options of `osb file chmod`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("change").args(["mode", "owner", "group"]).required(true).multiple(true)))]
pub struct Chmod {
    /// Id of the sandbox
    id: String,
    /// Path in the sandbox
    path: String,
    #[command(flatten)]
    permissions: Permissions,
}

/// Options of `osb file replace`.
#[derive(Debug, Args)]
pub struct Replace {
    /// Id of the sandbox
    id: String,
    /// Path in the sandbox
    path: String,
    /// Text to find
    #[arg(long, allow_hyphen_values = true)]
    old: String,
    /// Text to put there
    #[arg(long, allow_hyphen_values = true)]
    new: String,
}

/// Removes files.
pub async fn rm(client: &Client, format: Option<Format>, options: &Paths) -> Result<ExitCode> {
    let printer = Printer::structured(format)?;
    client.attach(&options.id).files().remove(options.paths.iter().map(String::as_str)).await?;
    printer.done(&format!("removed {}", options.paths.join(", ")))?;
    Ok(ExitCode::SUCCESS)
}

/// Removes directories.
pub async fn rmdir(client: &Client, format: Option<Format>, options: &Paths) -> Result<ExitCode> {
    let printer = Printer::structured(format)?;
    client.attach(&options.id).files().remove_dirs(options.paths.iter().map(String::as_str)).await?;
    printer.done(&format!("removed {}", options.paths.join(", ")))?;
    Ok(ExitCode::SUCCESS)
}

/// Moves a file or directory.
pub async fn mv(client: &Client, format: Option<Format>, options: &Move) -> Result<ExitCode> {
    let printer = Printer::structured(format)?;
    client.attach(&options.id).files().rename(&options.source, &options.destination).await?;
    printer.done(&format!("moved {} to {}", options.source, options.destination))?;
    Ok(ExitCode::SUCCESS)
}

/// Makes directories.
pub async fn mkdir(client: &Client, format: Option<Format>, options: &Mkdir) -> Result<ExitCode> {
    let printer = Printer::structured(format)?;
    let files = client.attach(&options.paths.id).files();
    let permission = options.permissions.to_wire();
    for path in &options.paths.paths {
        files.mkdir_with(path, &permission).await?;
    }
    printer.done(&format!("made {}", options.paths.paths.join(", ")))?;
    Ok(ExitCode::SUCCESS)
}

/// Finds files.
pub async fn search(client: &Client, format: Option<Format>, options: &Search) -> Result<ExitCode> {
    let printer = Printer::structured(format)?;
    let found = client.attach(&options.id).files().search(&options.path, &options.pattern).await?;
    printer.list(&found, &found, HEADER, row, "nothing matches")?;
    Ok(ExitCode::SUCCESS)
}

/// Shows what is known of files.
pub async fn info(client: &Client, format: Option<Format>, options: &Paths) -> Result<ExitCode> {
    let printer = Printer::structured(format)?;
    let infos = client.attach(&options.id).files().info(options.paths.iter().map(String::as_str)).await?;
    let rows: Vec<_> = infos.values().collect();
    printer.list(&infos, &rows, HEADER, |info| row(info), "")?;
    Ok(ExitCode::SUCCESS)
}

/// Changes mode and owners.
pub async fn chmod(client: &Client, format: Option<Format>, options: &Chmod) -> Result<ExitCode> {
    let printer = Printer::structured(format)?;
    client.attach(&options.id).files().set_permission(&options.path, &options.permissions.to_wire()).await?;
    printer.done(&format!("changed {}", options.path))?;
    Ok(ExitCode::SUCCESS)
}

/// Replaces a text in a file.
pub async fn replace(client: &Client, format: Option<Format>, options: &Replace) -> Result<ExitCode> {
    let printer = Printer::structured(format)?;
    let count = client.attach(&options.id).files().replace(&options.path, &options.old, &options.new).await?;
    let whole = json!({ "path": options.path, "replaced_count": count });
    printer.object(&whole, &[("path", options.path.clone()), ("replaced", count.to_string())])?;
    Ok(ExitCode::SUCCESS)
}

const HEADER: &[&str] = &["MODE", "OWNER", "GROUP", "SIZE", "MODIFIED", "PATH"];

fn row(info: &FileInfo) -> Vec<String> {
    let kind = match info.kind {
        Some(FileType::Directory) => 'd',
        Some(FileType::Symlink) => 'l',
        Some(FileType::Other) => '?',
        Some(FileType::File) | None => '-',
    };
    vec![
        format!("{kind}{:03}", info.mode),
        info.owner.clone(),
        info.group.clone(),
        info.size.to_string(),
        info.modified_at.to_string(),
        info.path.clone(),
    ]
}
