//! `cargo xtask sim` and `cargo xtask mutants`: the controller under simulated users, faults and time.

use anyhow::Result;
use clap::Args;

use crate::{cargo, tool};

/// What is handed to the simulator.
#[derive(Args)]
pub struct Options {
    /// Arguments of the simulator; `--help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    arguments: Vec<String>,
}

/// Builds the simulator for release, since it is bound by the processor, and runs it.
pub fn run(options: &Options) -> Result<()> {
    play(&[], &[], options)
}

/// The same with guards of the controller that can be taken away: each of them is, one at a time.
pub fn mutants(options: &Options) -> Result<()> {
    play(&["--features", "sim/mutants"], &["--mutants"], options)
}

fn play(features: &[&str], first: &[&str], options: &Options) -> Result<()> {
    let commit = tool::said(std::process::Command::new("git").args(["describe", "--always", "--dirty"]), "");
    // Chosen from the whole workspace, so that dependencies are those that are built already.
    let mut sim = cargo::cargo(&["run", "--release", "--quiet", "--workspace", "--bin", "sim"]);
    sim.args(features).arg("--").args(first);
    // Outside a git checkout the report says that the commit is unknown.
    commit.iter().for_each(|commit| {
        sim.args(["--commit", commit.trim()]);
    });
    cargo::run(sim.args(&options.arguments))
}
