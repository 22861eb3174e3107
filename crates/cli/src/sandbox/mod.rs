//! `osb sandbox`: create, list and end sandboxes.

mod create;
mod list;
mod one;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::{cli::Globals, connection, output::Printer};

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create a sandbox, from a pool or from an image
    Create(Box<create::Options>),
    /// List sandboxes
    List(list::Options),
    /// Show a sandbox
    Get(one::Id),
    /// End sandboxes
    Kill(one::Kill),
    /// Let a sandbox live longer
    Renew(one::Renew),
    /// Show where a port of a sandbox is reached
    Endpoint(one::Port),
    /// Ask whether a sandbox answers; exit code 1 when it does not
    Health(one::Id),
    /// Show processor and memory in use
    Metrics(one::Metrics),
    /// Freeze a sandbox, where the platform can
    Pause(one::Id),
    /// Go on with a sandbox that was paused
    Resume(one::Resume),
}

/// Runs a verb.
pub async fn run(globals: &Globals, verb: Verb) -> Result<ExitCode> {
    if let Verb::Metrics(options) = &verb
        && options.watch
    {
        return one::watch_metrics(&connection::connect(globals)?.0, globals.output, options).await;
    }
    let printer = Printer::structured(globals.output)?;
    let (client, defaults) = connection::connect(globals)?;
    match verb {
        Verb::Create(options) => create::run(&client, &defaults, printer, *options).await,
        Verb::List(options) => list::run(&client, printer, options).await,
        Verb::Get(options) => one::get(&client, printer, &options).await,
        Verb::Kill(options) => one::kill(&client, printer, &options).await,
        Verb::Renew(options) => one::renew(&client, printer, &options).await,
        Verb::Endpoint(options) => one::endpoint(&client, printer, &options).await,
        Verb::Health(options) => one::health(&client, printer, &options).await,
        Verb::Pause(options) => one::pause(&client, printer, &options).await,
        Verb::Resume(options) => one::resume(&client, printer, &options).await,
        Verb::Metrics(options) => one::metrics(&client, printer, &options).await,
    }
}
