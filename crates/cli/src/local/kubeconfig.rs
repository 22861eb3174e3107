//! `osb kubeconfig`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use super::home::Home;

/// What `osb kubeconfig` may be told.
#[derive(Debug, Args)]
pub struct Options {
    /// Print the file's path instead, for `export KUBECONFIG=$(osb kubeconfig --path)`.
    #[arg(long)]
    path: bool,
}

/// Prints the kubeconfig, or where it is.
pub fn run(options: &Options) -> Result<ExitCode> {
    let path = Home::from_environment().kubeconfig();
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("no platform has run from here ({}); start one with `osb up`", path.display()))?;
    if options.path {
        anstream::println!("{}", path.display());
    } else {
        anstream::print!("{text}");
    }
    Ok(ExitCode::SUCCESS)
}
