//! Every chore of the workspace: `cargo xtask VERB`.
//!
//! This crate stays small, so that a chore starts at once; what needs the platform's own code is
//! a binary of the `e2e` package or a verb of `osb`, which the chores build and run.

mod bench;
mod cargo;
mod chart;
mod ci;
mod demo;
mod e2e;
mod generate;
mod images;
mod progress;
mod sim;
mod tool;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The chores of the OpenSandbox workspace", version)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Build the platform, start it on this machine, run an agent in a pool's sandbox, and clean up.
    Demo(demo::Options),
    /// Write the CRDs and the OpenAPI document from the code.
    Generate(generate::Options),
    /// Make the OCI images, load them into a cluster, push them to a registry.
    Images(images::Options),
    /// Package the Helm chart, or check it.
    Chart(chart::Options),
    /// Run the end-to-end suite on kind, on any cluster, or on the embedded cluster.
    E2e(e2e::Options),
    /// Measure: prints n, p50, p99 and max of each figure, and the machine.
    Bench(bench::Options),
    /// Play stories of users and faults against the controller: `--seeds A..B`, `--crashes`, `--replay SEED`.
    #[command(disable_help_flag = true)]
    Sim(sim::Options),
    /// Take each guard of the controller away and show which rule of the simulator breaks without it.
    #[command(disable_help_flag = true)]
    Mutants(sim::Options),
    /// What continuous integration runs: formatting, lints, generated files, tests, demo.
    Ci(ci::Options),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().chore {
        Chore::Demo(options) => demo::run(&options),
        Chore::Generate(options) => generate::run(&options),
        Chore::Images(options) => images::run(&options),
        Chore::Chart(options) => chart::run(&options),
        Chore::E2e(options) => e2e::run(&options),
        Chore::Bench(options) => bench::run(&options),
        Chore::Sim(options) => sim::run(&options),
        Chore::Mutants(options) => sim::mutants(&options),
        Chore::Ci(options) => ci::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
