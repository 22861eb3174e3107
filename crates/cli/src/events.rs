//! `osb events`: a sandbox's state as it changes.

use std::{pin::pin, process::ExitCode};

use anyhow::Result;
use clap::Args;
use futures::TryStreamExt;

use crate::{
    cli::Globals,
    connection,
    output::{Format, Printer, line},
    views::SandboxView,
};

/// Options of `osb events`.
#[derive(Debug, Args)]
pub struct Options {
    /// Id of the sandbox
    sandbox: String,
    /// Go on until the sandbox is gone
    #[arg(short, long)]
    watch: bool,
}

/// Runs it: one line a state, as words or as JSON.
pub async fn run(globals: &Globals, options: &Options) -> Result<ExitCode> {
    let json = match globals.output {
        None | Some(Format::Table) => false,
        format => Printer::structured(format).map(|_| true)?,
    };
    let (client, _) = connection::connect(globals)?;
    let mut states = pin!(client.watch(&options.sandbox));
    while let Some(info) = states.try_next().await? {
        let view = SandboxView::from(info);
        if json {
            line(&serde_json::to_string(&view)?)?;
        } else {
            let at = view.status.last_transition_at.map(|at| at.to_string()).unwrap_or_default();
            let message = view.status.message.as_deref().unwrap_or_default();
            line(format!("{at}  {}  {message}", view.status.state).trim())?;
        }
        if !options.watch {
            return Ok(ExitCode::SUCCESS);
        }
    }
    if !json {
        line("gone")?;
    }
    Ok(ExitCode::SUCCESS)
}
