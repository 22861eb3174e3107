//! `cargo xtask demo`: from a fresh clone to an agent's output.

use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::cargo;

/// What the demo may be told.
#[derive(Args, Default)]
pub struct Options {
    /// Keep the platform up, and print how to reach it.
    #[arg(long)]
    stay: bool,
}

/// Builds the platform and runs `osb demo`.
pub fn run(options: &Options) -> Result<()> {
    eprintln!("building the platform (the first build takes some minutes) ...");
    let binaries = cargo::build_platform()?;
    let mut demo = Command::new(binaries.join("osb"));
    demo.arg("demo");
    if options.stay {
        demo.arg("--stay");
    }
    cargo::run(&mut demo)
}
