//! `cargo xtask sim`: the controller under simulated users, faults and time.

use anyhow::Result;
use clap::Args;

use crate::cargo;

/// What is handed to the simulator.
#[derive(Args)]
pub struct Options {
    /// Arguments of the simulator; `--help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    arguments: Vec<String>,
}

/// Builds the simulator for release, since it is bound by the processor, and runs it.
pub fn run(options: &Options) -> Result<()> {
    let mut sim = cargo::cargo(&["run", "--release", "--quiet", "--package", "sim", "--"]);
    cargo::run(sim.args(&options.arguments))
}
