//! `osb run`: a sandbox for one command.

use std::{process::ExitCode, time::Duration};

use anyhow::{Result, bail};
use clap::Args;
use opensandbox::Sandbox;

use crate::{
    args::{duration, pair},
    cli::Globals,
    command, connection,
    output::{notice, only_raw, spinner},
};

/// How long a sandbox lives whose `osb` died before it could end it.
const LIFETIME: Duration = Duration::from_secs(3600);

/// Options of `osb run`.
#[derive(Debug, Args)]
pub struct Options {
    /// The image, unless --pool is given, then the command: one word is shell text, several are a program and its
    /// arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "[IMAGE] COMMAND")]
    words: Vec<String>,
    /// Take the sandbox from this pool
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Variable of the environment; repeatable
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// Limit, e.g. cpu=500m; repeatable
    #[arg(long, value_name = "NAME=QUANTITY", value_parser = pair)]
    resource: Vec<(String, String)>,
    /// Working directory
    #[arg(short, long, value_name = "PATH")]
    workdir: Option<String>,
    /// Kill the command after this long, e.g. 30s
    #[arg(short, long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Leave the sandbox there, and print its id on standard error
    #[arg(long)]
    keep: bool,
}

/// Runs it.
pub async fn run(globals: &Globals, options: Options) -> Result<ExitCode> {
    only_raw(globals.output)?;
    let (client, _) = connection::connect(globals)?;
    let (mut builder, words) = match (&options.pool, options.words.split_first()) {
        (Some(pool), _) => (Sandbox::from_pool(pool).client(&client), options.words.as_slice()),
        (None, Some((image, words))) if !words.is_empty() => (client.sandbox(image), words),
        _ => bail!("there is no command; write osb run IMAGE COMMAND or osb run --pool NAME COMMAND"),
    };
    // What stands after the image belongs to the command, but for the mark that says so.
    let words = words.strip_prefix(&["--".to_owned()]).unwrap_or(words);
    for (name, quantity) in options.resource {
        builder = builder.resource(name, quantity);
    }
    let mut command = command::run::of_words(words, false)?;
    if let Some(directory) = options.workdir {
        command = command.cwd(directory);
    }
    if let Some(timeout) = options.timeout {
        command = command.timeout(timeout);
    }
    let lifetime = options.timeout.map_or(LIFETIME, |timeout| timeout.saturating_add(LIFETIME));
    let waiting = spinner("creating a sandbox");
    let created = builder.envs(options.env).timeout(lifetime).create().await;
    waiting.finish_and_clear();
    let sandbox = created?.kill_on_drop();
    let outcome = command::run::foreground(&sandbox.commands(), command, options.interactive).await;
    if options.keep {
        notice(&format!("sandbox {}", sandbox.disarm().id()))?;
        return outcome;
    }
    // What the command ended with matters more than that the sandbox lives until it expires.
    let id = sandbox.id().to_owned();
    if let Err(error) = sandbox.kill().await {
        notice(&format!("warning: sandbox {id} could not be ended: {error}"))?;
    }
    outcome
}
