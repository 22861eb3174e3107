//! `osb file cat`, `write`, `upload` and `download`: bytes in and out, never in memory as a whole.

use std::{
    io::{IsTerminal, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use futures::TryStreamExt;
use opensandbox::{Client, WriteFile};

use super::Permissions;
use crate::output::{Format, Printer, notice, only_raw, transfer};

/// Options of `osb file cat`.
#[derive(Debug, Args)]
pub struct Cat {
    /// Id of the sandbox
    id: String,
    /// Path in the sandbox
    path: String,
    /// Taken for the sake of scripts: the bytes are printed as they are
    #[arg(long, hide = true)]
    encoding: Option<String>,
}

/// Options of `osb file write`.
#[derive(Debug, Args)]
pub struct Write {
    /// Id of the sandbox
    id: String,
    /// Path in the sandbox
    path: String,
    /// What to write, instead of standard input
    #[arg(short, long, allow_hyphen_values = true)]
    content: Option<String>,
    /// Taken for the sake of scripts: the bytes are written as they are
    #[arg(long, hide = true)]
    encoding: Option<String>,
    #[command(flatten)]
    permissions: Permissions,
}

/// Options of `osb file upload`.
#[derive(Debug, Args)]
pub struct Upload {
    /// Id of the sandbox
    pub id: String,
    /// File on this machine
    pub local: PathBuf,
    /// Path in the sandbox
    pub remote: String,
}

/// Options of `osb file download`.
#[derive(Debug, Args)]
pub struct Download {
    /// Id of the sandbox
    pub id: String,
    /// Path in the sandbox
    pub remote: String,
    /// File on this machine; a directory takes it under its own name
    pub local: PathBuf,
}

/// Prints a file.
pub async fn cat(client: &Client, format: Option<Format>, options: &Cat) -> Result<ExitCode> {
    only_raw(format)?;
    let mut chunks = client.attach(&options.id).files().stream(&options.path).await?;
    while let Some(chunk) = chunks.try_next().await? {
        std::io::stdout().lock().write_all(&chunk)?;
    }
    std::io::stdout().lock().flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a file.
pub async fn write(client: &Client, format: Option<Format>, options: Write) -> Result<ExitCode> {
    let printer = Printer::structured(format)?;
    let files = client.attach(&options.id).files();
    let mut file = WriteFile::new(&options.path, options.content.clone().unwrap_or_default());
    if let Some(mode) = options.permissions.mode {
        file = file.mode(mode);
    }
    if let Some(owner) = options.permissions.owner {
        file = file.owner(owner);
    }
    if let Some(group) = options.permissions.group {
        file = file.group(group);
    }
    if options.content.is_some() {
        files.write_many([file]).await?;
    } else {
        if std::io::stdin().is_terminal() {
            notice("reading from standard input; end it with Ctrl-D")?;
        }
        files.upload_as(file, tokio::io::stdin(), None).await?;
    }
    printer.done(&format!("wrote {}", options.path))?;
    Ok(ExitCode::SUCCESS)
}

/// Copies a file in.
pub async fn upload(client: &Client, format: Option<Format>, options: &Upload) -> Result<ExitCode> {
    let printer = Printer::structured(format)?;
    let name = options.local.display();
    let file = tokio::fs::File::open(&options.local).await.with_context(|| format!("{name} cannot be opened"))?;
    let metadata = file.metadata().await.with_context(|| format!("{name} cannot be read"))?;
    if metadata.is_dir() {
        bail!("{name} is a directory; copy it with osb cp");
    }
    // Pipes and devices tell no size.
    let size = metadata.is_file().then_some(metadata.len());
    let bar = transfer(size, "uploading");
    let outcome = client.attach(&options.id).files().upload(&options.remote, bar.wrap_async_read(file), size).await;
    bar.finish_and_clear();
    outcome?;
    printer.done(&format!("uploaded {name} to {}", options.remote))?;
    Ok(ExitCode::SUCCESS)
}

/// Copies a file out. A file that is there is replaced only when all has come.
pub async fn download(client: &Client, format: Option<Format>, options: &Download) -> Result<ExitCode> {
    let printer = Printer::structured(format)?;
    let target = target(&options.local, &options.remote)?;
    let mut chunks = client.attach(&options.id).files().stream(&options.remote).await?;
    let failed = || format!("{} cannot be written", target.display());
    let bar = transfer(chunks.size(), "downloading");
    let kind = std::fs::metadata(&target).map(|m| m.file_type());
    if kind.is_ok_and(|kind| !kind.is_file()) {
        // A device or pipe takes the bytes as they come and is never replaced.
        let mut out = std::fs::OpenOptions::new().write(true).open(&target).with_context(failed)?;
        while let Some(chunk) = chunks.try_next().await? {
            out.write_all(&chunk).with_context(failed)?;
            bar.inc(chunk.len() as u64);
        }
    } else {
        let directory = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory).with_context(failed)?;
        let mut partial = tempfile::Builder::new()
            .prefix(".osb-")
            .permissions(permissions(&target))
            .tempfile_in(directory)
            .with_context(failed)?;
        while let Some(chunk) = chunks.try_next().await? {
            partial.write_all(&chunk).with_context(failed)?;
            bar.inc(chunk.len() as u64);
        }
        partial.as_file().sync_all().with_context(failed)?;
        partial.persist(&target).with_context(failed)?;
    }
    bar.finish_and_clear();
    // What went to our own standard output must stay clean.
    if !matches!(target.to_str(), Some("/dev/stdout" | "/proc/self/fd/1" | "/dev/fd/1")) {
        printer.done(&format!("downloaded {} to {}", options.remote, target.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn target(local: &Path, remote: &str) -> Result<PathBuf> {
    if !local.is_dir() {
        return Ok(local.to_owned());
    }
    let name = Path::new(remote)
        .file_name()
        .with_context(|| format!("{remote:?} has no file name; name the local file too"))?;
    Ok(local.join(name))
}

/// Those of the file that is replaced, else what the umask leaves.
fn permissions(target: &Path) -> std::fs::Permissions {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(target).map_or_else(|_| std::fs::Permissions::from_mode(0o666), |m| m.permissions())
}
