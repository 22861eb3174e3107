//! `osb command status`, `logs` and `interrupt`: commands that have been started.

use std::{io::Write, process::ExitCode};

use anyhow::Result;
use clap::Args;
use opensandbox::Client;
use serde_json::json;

use crate::output::{Format, Printer, only_raw};

/// An execution.
#[derive(Debug, Args)]
pub struct Execution {
    /// Id of the sandbox
    id: String,
    /// Id of the execution
    execution: String,
}

/// Options of `osb command logs`.
#[derive(Debug, Args)]
pub struct Logs {
    #[command(flatten)]
    execution: Execution,
    /// Byte to start from
    #[arg(long, value_name = "N", default_value_t = 0)]
    cursor: u64,
    /// Go on until the command ends, and end with its exit code
    #[arg(short, long)]
    follow: bool,
}

/// Shows how a command is doing.
pub async fn status(client: &Client, format: Option<Format>, options: &Execution) -> Result<ExitCode> {
    let printer = Printer::structured(format)?;
    let status = client.attach(&options.id).commands().status(&options.execution).await?;
    let mut rows = vec![("execution", status.id.clone()), ("running", status.running.to_string())];
    rows.extend(status.exit_code.map(|code| ("exit code", code.to_string())));
    rows.extend(status.error.clone().map(|error| ("error", error)));
    rows.extend(status.content.clone().map(|content| ("command", content)));
    rows.extend(status.started_at.map(|at| ("started", at.to_string())));
    rows.extend(status.finished_at.map(|at| ("finished", at.to_string())));
    printer.object(&status, &rows)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints output of a background command, byte for byte.
pub async fn logs(client: &Client, format: Option<Format>, options: &Logs) -> Result<ExitCode> {
    let Execution { id, execution } = &options.execution;
    if options.follow {
        only_raw(format)?;
        let commands = client.attach(id).commands();
        let events = commands.follow_exact(execution, Some(&options.cursor.to_string())).await?;
        return super::run::follow(&commands, events, false).await;
    }
    let printer = match format {
        None | Some(Format::Raw | Format::Table) => None,
        Some(format) => Some(Printer::structured(Some(format))?),
    };
    let logs = client.attach(id).commands().logs(execution, options.cursor).await?;
    match printer {
        Some(printer) => {
            printer
                .object(&json!({ "content": String::from_utf8_lossy(&logs.content), "cursor": logs.cursor }), &[])?;
        }
        None => {
            let mut out = std::io::stdout().lock();
            out.write_all(&logs.content)?;
            out.flush()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Stops a command.
pub async fn interrupt(client: &Client, format: Option<Format>, options: &Execution) -> Result<ExitCode> {
    let printer = Printer::structured(format)?;
    client.attach(&options.id).commands().interrupt(&options.execution).await?;
    printer.done(&format!("interrupted {}", options.execution))?;
    Ok(ExitCode::SUCCESS)
}
