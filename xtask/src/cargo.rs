//! Running cargo and what it built.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::tool;

/// The workspace's root directory.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().map(PathBuf::from).unwrap_or_default()
}

/// A cargo command in the workspace's root. Its progress goes where ours goes.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = programs::cargo(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
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

/// Cargo's target directory. Cargo is asked, since configuration and environment decide.
pub fn target_dir() -> Result<PathBuf> {
    let metadata = cargo_metadata::MetadataCommand::new().current_dir(root()).no_deps().exec();
    Ok(metadata.context("cargo metadata failed")?.target_directory.into())
}

/// The compiler.
pub fn rustc() -> Command {
    Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

/// The target of this machine.
pub fn host_target() -> Result<String> {
    let text = tool::said(rustc().arg("-vV"), "")?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV names no host")?;
    Ok(host.to_owned())
}

/// Where cargo puts the release binaries.
pub fn release_dir() -> Result<PathBuf> {
    Ok(target_dir()?.join(host_target()?).join("release"))
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
