//! `cargo xtask bench`: figures, printed and never asserted.

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::{cargo, e2e};

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
    /// The platform on a cluster, installed for it: creates, first output, kills, writes, memory, image sizes.
    Cluster {
        #[command(flatten)]
        place: Box<e2e::Place>,
        /// Sandboxes created for each figure.
        #[arg(long, default_value_t = 100)]
        runs: u32,
    },
    /// An execd: commands, streams, files, memory. Without --target one is built and started.
    Execd {
        /// What the measuring binary takes: --target URL, --token TOKEN, --runs N, --mebibytes N, --streams N.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

/// Builds everything for release and runs the measuring binary.
pub fn run(options: &Options) -> Result<()> {
    let mut bench = measuring();
    match &options.what {
        What::Cluster { place, runs } => {
            return e2e::installed(place, &|installed| {
                let begun = installed.begun.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                let mut bench = measuring();
                bench.args(["cluster", "--begun", &begun.as_millis().to_string(), "--runs", &runs.to_string()]);
                cargo::run(bench.env(e2e::SETTING, installed.setting))
            });
        }
        What::Embedded { runs } => {
            let binaries = cargo::build_platform()?;
            bench.arg("embedded").arg("--binaries").arg(binaries).arg("--runs").arg(runs.to_string());
        }
        What::Execd { arguments } => {
            bench.arg("execd").args(arguments);
            if !arguments.iter().any(|argument| argument.starts_with("--target")) {
                cargo::run(&mut cargo::cargo(&["build", "--release", "--package", "execd", "--bins"]))?;
                bench.arg("--binary").arg(cargo::release_dir()?.join("execd"));
            }
        }
    }
    cargo::run(&mut bench)
}

/// The measuring binary.
fn measuring() -> std::process::Command {
    cargo::cargo(&["run", "--release", "--quiet", "--package", "e2e", "--bin", "bench", "--"])
}
