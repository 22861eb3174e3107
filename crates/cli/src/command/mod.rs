//! `osb command`: run commands in a sandbox.

mod past;
pub mod run;
mod session;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::{cli::Globals, connection};

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run a command, and end with its exit code
    Run(run::Options),
    /// Show how a command is doing, or how it ended
    Status(past::Execution),
    /// Print the output of a background command
    Logs(past::Logs),
    /// Stop a command
    Interrupt(past::Execution),
    /// Shells that stay from run to run
    #[command(subcommand)]
    Session(session::Verb),
}

/// Runs a verb.
pub async fn run(globals: &Globals, verb: Verb) -> Result<ExitCode> {
    let (client, _) = connection::connect(globals)?;
    match verb {
        Verb::Run(options) => run::run(&client, globals.output, options).await,
        Verb::Status(options) => past::status(&client, globals.output, &options).await,
        Verb::Logs(options) => past::logs(&client, globals.output, &options).await,
        Verb::Session(verb) => session::run(&client, globals.output, verb).await,
        Verb::Interrupt(options) => past::interrupt(&client, globals.output, &options).await,
    }
}
