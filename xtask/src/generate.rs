//! `cargo xtask generate`: the files that are written from the code and checked in.

use anyhow::Result;
use clap::Args;

use crate::cargo;

/// What the generation may be told.
#[derive(Args)]
pub struct Options {
    /// Write nothing; fail when a file differs from what would be written.
    #[arg(long)]
    check: bool,
}

impl Options {
    /// Only compare.
    pub fn check() -> Self {
        Self { check: true }
    }
}

/// Runs the generator of the `e2e` package, which links what the files are made from.
pub fn run(options: &Options) -> Result<()> {
    let mut generate = cargo::cargo(&["run", "--quiet", "--bin", "generate", "--"]);
    if options.check {
        generate.arg("--check");
    }
    cargo::run(&mut generate)
}
