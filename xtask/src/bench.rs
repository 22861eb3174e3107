//! `cargo xtask bench`: figures, printed and never asserted.

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::cargo;

/// What is measured.
#[derive(Args)]
pub struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The embedded platform: create, first output, commands, start, memory, sizes.
    Embedded {
        /// Runs of each figure.
        #[arg(long, default_value_t = 200)]
        runs: u32,
    },
}

/// Builds everything for release and runs the measuring binary.
pub fn run(options: &Options) -> Result<()> {
    let What::Embedded { runs } = &options.what;
    let binaries = cargo::build_platform()?;
    let mut bench = cargo::cargo(&["run", "--release", "--quiet", "--package", "e2e", "--bin", "bench", "--"]);
    bench.arg("embedded").arg("--binaries").arg(binaries).arg("--runs").arg(runs.to_string());
    cargo::run(&mut bench)
}
