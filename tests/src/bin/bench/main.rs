//! Figures of the platform, measured and printed; nothing is asserted.

mod audit;
mod cluster;
mod embedded;
mod execd;
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
    /// A platform installed on the cluster of the current kubeconfig.
    Cluster(cluster::Options),
    /// One execd: commands, streams, files, memory.
    Execd(execd::Options),
}

fn main() -> Result<()> {
    match Arguments::parse().ground {
        Ground::Embedded { binaries, runs } => embedded::run(&binaries, runs),
        Ground::Cluster(options) => cluster::run(&options),
        Ground::Execd(options) => execd::run(&options),
    }
}
