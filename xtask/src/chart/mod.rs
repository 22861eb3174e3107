//! `cargo xtask chart`: the Helm chart as an archive, and what others' tools say of it.

mod check;
mod edit;
mod package;
mod schemas;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{cargo, images};

/// The chart's name and folder.
const NAME: &str = "opensandbox";

/// What the packaging may be told.
#[derive(Args)]
pub struct Options {
    /// Directory of the archive [default: `chart` in cargo's target directory].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Make the images that `cargo xtask images --push PREFIX` pushed the chart's defaults, by digest.
    #[arg(long, value_name = "PREFIX")]
    registry: Option<String>,
    /// Where `cargo xtask images` wrote its archives [default: `images` in cargo's target directory].
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Write nothing; fail when a generated file is old, or helm or kubeconform complain.
    #[arg(long, conflicts_with_all = ["out", "registry", "images"])]
    check: bool,
    /// With `--check`: where kubeconform finds schemas, as in its -schema-location; `cluster` takes them from the API
    /// server of the current kubeconfig.
    #[arg(long, value_name = "LOCATION", requires = "check")]
    schemas: Vec<String>,
}

impl Options {
    /// Only the check.
    pub fn check() -> Self {
        Self { out: None, registry: None, images: None, check: true, schemas: Vec::new() }
    }
}

/// Packages or checks.
pub fn run(options: &Options) -> Result<()> {
    let folder = cargo::root().join("charts").join(NAME);
    if options.check {
        return check::run(&folder, &options.schemas);
    }
    let target = cargo::target_dir()?;
    let version = env!("CARGO_PKG_VERSION");
    let made = images::read_made(options.images.as_deref().unwrap_or(&target.join("images")));

    let mut files = package::read(&folder)?;
    let references = match &options.registry {
        None => images::names(version)?,
        Some(prefix) => {
            let made = made.with_context(|| format!("run `cargo xtask images --push {prefix}` first"))?;
            let wanted = format!("{}/", prefix.trim_end_matches('/'));
            for image in &made {
                let there = image.pushed.as_deref().is_some_and(|pushed| pushed.starts_with(&wanted));
                ensure!(there, "{} was not pushed to {prefix}: run `cargo xtask images --push {prefix}`", image.name);
            }
            package::point_at(&mut files, &made)?;
            made.into_iter().map(|image| (image.name, image.pushed.unwrap_or_default())).collect()
        }
    };
    package::stamp(&mut files, version, &references)?;
    let out = options.out.clone().unwrap_or_else(|| target.join("chart"));
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let path = out.join(format!("{NAME}-{version}.tgz"));
    let archive = package::archive(NAME, &files)?;
    std::fs::write(&path, &archive).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{} ({} files, {})", path.display(), files.len(), images::digest(&archive));
    for (_, image) in references {
        println!("  {image}");
    }
    Ok(())
}
