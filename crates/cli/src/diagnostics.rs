//! `osb diagnostics`: what the sandbox container wrote, and what Kubernetes recorded.

use std::{io::Write, process::ExitCode};

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::{
    cli::Globals,
    connection,
    output::{Format, Printer},
};

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Print the last lines that the sandbox container wrote
    Logs(Options),
    /// Print what Kubernetes recorded of the sandbox and its pod
    Events(Options),
}

/// Options of both.
#[derive(Debug, Args)]
pub struct Options {
    /// Id of the sandbox
    id: String,
    /// What to look at: container or all for logs, runtime or all for events
    #[arg(short, long)]
    scope: String,
}

/// Runs a verb.
pub async fn run(globals: &Globals, verb: Verb) -> Result<ExitCode> {
    let (client, _) = connection::connect(globals)?;
    let diagnosis = match &verb {
        Verb::Logs(options) => client.diagnostic_logs(&options.id, &options.scope).await?,
        Verb::Events(options) => client.diagnostic_events(&options.id, &options.scope).await?,
    };
    match globals.output {
        None | Some(Format::Raw | Format::Table) => {
            let mut out = anstream::stdout().lock();
            out.write_all(diagnosis.content.as_bytes())?;
            out.flush()?;
        }
        format => Printer::structured(format)?.value(&diagnosis)?,
    }
    Ok(ExitCode::SUCCESS)
}
