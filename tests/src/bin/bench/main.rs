//! Figures of the platform, measured and printed; nothing is asserted.

mod embedded;
mod figures;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    ground: Ground,
}

#[derive(Subcommand)]
enum Ground {
    /// The embedded platform on this machine.
    Embedded {
        /// Directory of osb, execd and task-executor.
        #[arg(long)]
        binaries: PathBuf,
        /// Runs of each figure.
        #[arg(long, default_value_t = 200)]
        runs: u32,
    },
}

fn main() -> Result<()> {
    let Ground::Embedded { binaries, runs } = Arguments::parse().ground;
    embedded::run(&binaries, runs)
}
