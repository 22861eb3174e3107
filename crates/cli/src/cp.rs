//! `osb cp`: files and directories, into a sandbox or out of it.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use opensandbox::{Files, types::FileType};

use crate::{
    cli::Globals,
    connection,
    file::transfer,
    output::{self, Printer},
};

/// Options of `osb cp`.
#[derive(Debug, Args)]
#[command(
    after_help = "One side is SANDBOX:PATH, the other a path on this machine. What is copied to a directory that \
                        is there goes into it under its own name."
)]
pub struct Options {
    /// From where
    from: String,
    /// To where
    to: String,
}

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Side<'a> {
    Here(&'a str),
    Sandbox(&'a str, &'a str),
}

/// As scp tells them apart: a colon before any slash names a sandbox.
fn side(text: &str) -> Side<'_> {
    match text.split_once(':') {
        Some((id, path)) if !id.is_empty() && !id.contains('/') && !path.is_empty() => Side::Sandbox(id, path),
        _ => Side::Here(text),
    }
}

/// Runs it.
pub async fn run(globals: &Globals, options: &Options) -> Result<ExitCode> {
    match (side(&options.from), side(&options.to)) {
        (Side::Here(local), Side::Sandbox(id, remote)) => upload(globals, Path::new(local), id, remote).await,
        (Side::Sandbox(id, remote), Side::Here(local)) => download(globals, id, remote, Path::new(local)).await,
        (Side::Here(_), Side::Here(_)) => bail!("one side must be SANDBOX:PATH"),
        (Side::Sandbox(..), Side::Sandbox(..)) => {
            bail!("only one side can be SANDBOX:PATH; copy by way of this machine")
        }
    }
}

async fn is_dir(files: &Files, path: &str) -> Result<Option<bool>> {
    match files.info([path]).await {
        Ok(found) => Ok(found.values().next().map(|info| info.kind == Some(FileType::Directory))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn upload(globals: &Globals, local: &Path, id: &str, remote: &str) -> Result<ExitCode> {
    let (client, _) = connection::connect(globals)?;
    let files = client.attach(id).files();
    let mut target = remote.to_owned();
    if remote.ends_with('/') || is_dir(&files, remote).await? == Some(true) {
        let whole = local.canonicalize().with_context(|| format!("{} cannot be read", local.display()))?;
        let name =
            whole.file_name().and_then(|name| name.to_str()).context("the source has no name; name the target")?;
        target = format!("{}/{name}", remote.trim_end_matches('/'));
    }
    if !local.is_dir() {
        let options = transfer::Upload { id: id.to_owned(), local: local.to_owned(), remote: target };
        return transfer::upload(&client, globals.output, &options).await;
    }
    let printer = Printer::structured(globals.output)?;
    let bar = output::transfer(None, "uploading");
    let shown = bar.clone();
    let copied = files.upload_dir(local, &target, move |so_far| shown.set_position(so_far.bytes)).await;
    bar.finish_and_clear();
    printer.done(&format!("uploaded {} ({} entries) to {target}", local.display(), copied?))?;
    Ok(ExitCode::SUCCESS)
}

async fn download(globals: &Globals, id: &str, remote: &str, local: &Path) -> Result<ExitCode> {
    let (client, _) = connection::connect(globals)?;
    let files = client.attach(id).files();
    if is_dir(&files, remote).await? != Some(true) {
        let options = transfer::Download { id: id.to_owned(), remote: remote.to_owned(), local: local.to_owned() };
        return transfer::download(&client, globals.output, &options).await;
    }
    let target: PathBuf = match Path::new(remote).file_name() {
        Some(name) if local.is_dir() => local.join(name),
        _ => local.to_owned(),
    };
    let printer = Printer::structured(globals.output)?;
    let bar = output::transfer(None, "downloading");
    let shown = bar.clone();
    let copied = files.download_dir(remote, &target, move |so_far| shown.set_position(so_far.bytes)).await;
    bar.finish_and_clear();
    printer.done(&format!("downloaded {remote} ({} entries) to {}", copied?, target.display()))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_before_any_slash_names_a_sandbox() {
        assert_eq!(side("s1:/a:b"), Side::Sandbox("s1", "/a:b"));
        assert_eq!(side("s1:a"), Side::Sandbox("s1", "a"));
        for here in ["a", "./s1:a", "/x/y:z", ":a", "s1:"] {
            assert_eq!(side(here), Side::Here(here));
        }
    }
}
