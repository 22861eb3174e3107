//! `osb command session`: shells that stay from run to run.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Subcommand;
use opensandbox::{Client, RunCommand};
use serde_json::json;

use crate::{
    args::duration,
    output::{Format, Printer, only_raw},
};

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start a shell that stays
    Create {
        /// Id of the sandbox
        id: String,
        /// Its directory
        #[arg(short, long, value_name = "PATH")]
        workdir: Option<String>,
    },
    /// Run a command in it, and end with its exit code
    Run {
        /// Id of the sandbox
        id: String,
        /// Id of the session
        session: String,
        /// The command, after `--`; several words are joined
        #[arg(required = true)]
        command: Vec<String>,
        /// Directory of this run only
        #[arg(short, long, value_name = "PATH")]
        workdir: Option<String>,
        /// End it after this long, e.g. 30s
        #[arg(short, long, value_name = "DURATION", value_parser = duration)]
        timeout: Option<Duration>,
    },
    /// List them
    List {
        /// Id of the sandbox
        id: String,
    },
    /// End it and what runs in it
    Delete {
        /// Id of the sandbox
        id: String,
        /// Id of the session
        session: String,
    },
}

/// Runs a verb.
pub async fn run(client: &Client, format: Option<Format>, verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Create { id, workdir } => {
            let printer = Printer::structured(format)?;
            let sessions = client.attach(&id).sessions();
            let session = sessions.create_with(workdir.as_deref(), &std::collections::BTreeMap::new()).await?;
            let whole = json!({ "sandbox_id": id, "session_id": session.id() });
            printer.object(&whole, &[("session", session.id().to_owned()), ("sandbox", id.clone())])?;
        }
        Verb::Run { id, session, command, workdir, timeout } => {
            only_raw(format)?;
            let mut command: RunCommand = super::run::of_words(&command, false)?;
            if let Some(directory) = workdir {
                command = command.cwd(directory);
            }
            if let Some(timeout) = timeout {
                command = command.timeout(timeout);
            }
            let sandbox = client.attach(&id);
            let events = sandbox.sessions().attach(session).stream(command.exact()).await?;
            return super::run::follow(&sandbox.commands(), events, false).await;
        }
        Verb::List { id } => {
            let printer = Printer::structured(format)?;
            let sessions = client.attach(&id).sessions().list().await?;
            printer.list(
                &sessions,
                &sessions,
                &["SESSION", "DIRECTORY", "RUNNING"],
                |s| vec![s.id.clone(), s.cwd.clone(), s.running.clone().unwrap_or_else(|| "-".to_owned())],
                "there are no sessions",
            )?;
        }
        Verb::Delete { id, session } => {
            let printer = Printer::structured(format)?;
            client.attach(&id).sessions().attach(&session).close().await?;
            printer.done(&format!("session {session} has ended"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
