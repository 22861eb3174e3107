//! Running cargo and what it built.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The workspace's root directory.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().map(PathBuf::from).unwrap_or_default()
}

/// A cargo command in the workspace's root. Its progress goes where ours goes.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

/// Runs a command; its failure is an error that names it.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    if !status.success() {
        let words: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        bail!("{} {} ended with {status}", command.get_program().to_string_lossy(), words.join(" "));
    }
    Ok(())
}

/// Where cargo puts the release binaries. Cargo is asked, since configuration and environment decide.
pub fn release_dir() -> Result<PathBuf> {
    let metadata = cargo(&["metadata", "--no-deps", "--format-version", "1"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    let text = String::from_utf8(metadata.stdout).context("cargo metadata is not UTF-8")?;
    let target = text
        .split_once("\"target_directory\":\"")
        .and_then(|(_, rest)| rest.split_once('"'))
        .map(|(dir, _)| PathBuf::from(dir))
        .context("cargo metadata names no target directory")?;
    let host = Command::new("rustc").arg("-vV").output().context("cannot start rustc")?;
    let host = String::from_utf8(host.stdout).context("rustc -vV is not UTF-8")?;
    let triple = host.lines().find_map(|l| l.strip_prefix("host: ")).context("rustc -vV names no host")?;
    Ok(target.join(triple).join("release"))
}

/// The packages whose binaries are shipped. They are always built together: cargo unites the features of
/// what it builds at once, and the parts would otherwise be built twice.
pub const PLATFORM: [&str; 5] = ["controller", "execd", "osb", "server", "task-executor"];

/// Builds the platform's binaries for release and tells where they are.
pub fn build_platform() -> Result<PathBuf> {
    let mut build = cargo(&["build", "--release", "--bins"]);
    for package in PLATFORM {
        build.args(["--package", package]);
    }
    run(&mut build)?;
    release_dir()
}
