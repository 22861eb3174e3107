//! The binaries: built by cargo, all at once.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use cargo_metadata::{Message, Metadata};
use clap::ValueEnum;
use oci_spec::image::Arch;

use super::{elf, recipe::Recipe};
use crate::cargo;

/// How the binaries are built.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// Quick to build; symbols are removed on the way into the image.
    Dev,
    /// What is shipped.
    Release,
}

impl Profile {
    /// Level of gzip: who builds for a loop waits for it, who builds a release does it once.
    pub fn compression(self) -> u32 {
        match self {
            Self::Dev => 1,
            Self::Release => 9,
        }
    }
}

/// What cargo says about the workspace.
pub fn metadata(target: &str) -> Result<Metadata> {
    let mut command = cargo_metadata::MetadataCommand::new();
    command.current_dir(cargo::root()).other_options(vec!["--filter-platform".to_owned(), target.to_owned()]);
    command.exec().context("cargo metadata failed")
}

/// Fails where the target's standard library is not installed, before cargo fails with many words.
pub fn check_target(target: &str) -> Result<()> {
    let output =
        cargo::rustc().args(["--print", "target-libdir", "--target", target]).output().context("cannot start rustc")?;
    let directory = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    ensure!(
        output.status.success() && !directory.is_empty(),
        "rustc knows no target {target}; `rustc --print target-list` has those it knows"
    );
    ensure!(
        Path::new(&directory).is_dir(),
        "the target {target} is not installed: run `rustup target add {target}` (and install a C compiler and linker for it)"
    );
    Ok(())
}

/// Where the binaries come from.
pub enum Origin<'a> {
    /// Cargo builds them.
    Cargo(Profile),
    /// They lie in a directory.
    Directory(&'a Path),
}

/// Builds or finds the binaries of some images, and reads them.
pub fn binaries(
    all: &[Recipe],
    wanted: &[&Recipe],
    origin: &Origin<'_>,
    target: &str,
) -> Result<BTreeMap<String, Vec<u8>>> {
    let arch = elf::target_arch(target)?;
    let built = match origin {
        Origin::Cargo(profile) => build(all, wanted, *profile, target)?,
        Origin::Directory(_) => BTreeMap::new(),
    };
    let mut binaries = BTreeMap::new();
    for name in wanted.iter().flat_map(|recipe| recipe.binaries()) {
        let path = match origin {
            Origin::Cargo(_) => built.get(name).cloned(),
            Origin::Directory(directory) => Some(directory.join(name)),
        };
        let path = path.with_context(|| format!("no package of the images has a binary {name}"))?;
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let bytes = prepare(&bytes, &arch).with_context(|| format!("{} cannot be used", path.display()))?;
        binaries.insert(name.to_owned(), bytes);
    }
    Ok(binaries)
}

/// Runs cargo and tells where the executables are, by name. Cargo unites the features of what it builds at once,
/// so a binary built alone would be another one, and most of its dependencies compiled once more: a release always
/// builds the packages of all images, and nothing else has a say in it; a development build shares with the tests'.
fn build(all: &[Recipe], wanted: &[&Recipe], profile: Profile, target: &str) -> Result<BTreeMap<String, PathBuf>> {
    let mut command = cargo::cargo(&["build", "--message-format=json-render-diagnostics", "--target", target]);
    match profile {
        Profile::Release => {
            command.args(["--release", "--bins"]);
            for recipe in all {
                command.args(["--package", &recipe.package]);
            }
        }
        Profile::Dev => {
            command.arg("--workspace");
            for binary in wanted.iter().flat_map(|recipe| recipe.binaries()) {
                command.args(["--bin", binary]);
            }
        }
    }
    run(&mut command)
}

fn prepare(bytes: &[u8], arch: &Arch) -> Result<Vec<u8>> {
    elf::check(bytes, arch)?;
    if elf::is_stripped(bytes)? { Ok(bytes.to_vec()) } else { elf::strip(bytes) }
}

/// Runs a build, whose progress goes to our standard error, and tells where the executables are, by name.
fn run(command: &mut Command) -> Result<BTreeMap<String, PathBuf>> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let output = child.stdout.take().context("cargo has no output")?;
    let mut executables = BTreeMap::new();
    for message in Message::parse_stream(BufReader::new(output)) {
        if let Message::CompilerArtifact(artifact) = message.context("cannot read what cargo says")?
            && let Some(path) = artifact.executable
        {
            executables.insert(artifact.target.name, path.into_std_path_buf());
        }
    }
    let status = child.wait().context("cannot wait for cargo")?;
    if !status.success() {
        bail!("cargo build ended with {status}; what it said is above");
    }
    Ok(executables)
}
