//! `osb command run`: the command's output to our own, its exit code as our own.

use std::{io::Write, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::Args;
use futures::StreamExt;
use opensandbox::{Client, Commands, Event, EventStream, ExecutionError, OutputMessage, RunCommand};
use serde_json::json;

use crate::{
    args::{duration, pair},
    output::{Format, Printer, notice, only_raw},
};

/// Interrupted by the user.
const INTERRUPTED: u8 = 130;

/// Options of `osb command run`.
#[derive(Debug, Args)]
pub struct Options {
    /// Id of the sandbox
    id: String,
    /// The command, after `--`: one word is shell text, several are a program and its arguments
    #[arg(required = true)]
    command: Vec<String>,
    /// Return once it has started
    #[arg(short = 'd', long)]
    background: bool,
    /// Working directory
    #[arg(short, long, value_name = "PATH")]
    workdir: Option<String>,
    /// Kill it after this long, e.g. 30s
    #[arg(short, long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    /// Variable over the sandbox's environment; repeatable
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// Run without any shell
    #[arg(long)]
    argv: bool,
}

/// Runs it.
pub async fn run(client: &Client, format: Option<Format>, options: Options) -> Result<ExitCode> {
    let printer =
        if options.background { Some(Printer::structured(format)?) } else { only_raw(format).map(|()| None)? };
    let mut command = match options.command.as_slice() {
        words if options.argv => RunCommand::argv(words),
        [text] => RunCommand::shell(text),
        words => {
            RunCommand::shell(shlex::try_join(words.iter().map(String::as_str)).context("the command has a NUL byte")?)
        }
    };
    if let Some(directory) = options.workdir {
        command = command.cwd(directory);
    }
    if let Some(timeout) = options.timeout {
        command = command.timeout(timeout);
    }
    for (key, value) in options.env {
        command = command.env(key, value);
    }
    let commands = client.attach(&options.id).commands();
    if let Some(printer) = printer {
        let execution = commands.run_with(command.background()).await?;
        if let Some(error) = &execution.error {
            notice(&format!("error: the command could not be started: {}", error.value))?;
            return Ok(ExitCode::FAILURE);
        }
        let whole = json!({ "execution_id": execution.id, "sandbox_id": options.id, "mode": "background" });
        printer.object(&whole, &[("execution", execution.id), ("sandbox", options.id.clone())])?;
        return Ok(ExitCode::SUCCESS);
    }
    let events = commands.stream(command).await?;
    follow(&commands, events).await
}

/// Copies output until the end. The first Ctrl-C stops the command, the second stops waiting for it.
async fn follow(commands: &Commands, mut events: EventStream) -> Result<ExitCode> {
    let mut interrupted = false;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            signal = tokio::signal::ctrl_c() => {
                signal?;
                match events.id() {
                    Some(id) if !interrupted => {
                        interrupted = true;
                        let (commands, id) = (commands.clone(), id.to_owned());
                        tokio::spawn(async move {
                            if let Err(error) = commands.interrupt(&id).await {
                                tracing::warn!(%error, "the command could not be stopped");
                            }
                        });
                        continue;
                    }
                    _ => return Ok(ExitCode::from(INTERRUPTED)),
                }
            }
        };
        match event {
            Some(Ok(Event::Stdout(text))) => print(std::io::stdout().lock(), &text)?,
            Some(Ok(Event::Stderr(text))) => print(std::io::stderr().lock(), &text)?,
            Some(Ok(Event::Failed(_) | Event::Completed { .. })) if interrupted => {
                return Ok(ExitCode::from(INTERRUPTED));
            }
            Some(Ok(Event::Completed { .. })) => return Ok(ExitCode::SUCCESS),
            Some(Ok(Event::Failed(error))) => return failed(&error),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error.into()),
            None => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// The bytes as they are: no colour is taken out, whatever the output is.
fn print(mut out: impl Write, line: &OutputMessage) -> Result<()> {
    out.write_all(line.text().as_bytes())?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

fn failed(error: &ExecutionError) -> Result<ExitCode> {
    // What the exit code does not say, e.g. that time was up.
    for detail in
        error.traceback.iter().filter(|line| !line.starts_with("exit status ") && !line.starts_with("signal: "))
    {
        notice(detail)?;
    }
    match error.exit_code() {
        Some(code @ 1..=255) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))),
        Some(_) => {
            let signal = error.traceback.iter().find_map(|line| line.strip_prefix("signal: ")).unwrap_or("unknown");
            notice(&format!("the command was ended by a signal: {signal}"))?;
            Ok(ExitCode::from(signal_code(signal)))
        }
        None => {
            notice(&format!("error: the command could not be run: {}", error.value))?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// 128 + number, for the names that daemons give signals.
fn signal_code(name: &str) -> u8 {
    let number = match name {
        "hangup" => 1,
        "interrupt" => 2,
        "quit" => 3,
        "illegal instruction" => 4,
        "trace/breakpoint trap" => 5,
        "aborted" => 6,
        "bus error" => 7,
        "floating point exception" => 8,
        "killed" => 9,
        "user defined signal 1" => 10,
        "segmentation fault" => 11,
        "user defined signal 2" => 12,
        "broken pipe" => 13,
        "alarm clock" => 14,
        "terminated" => 15,
        other => match other.strip_prefix("signal ").and_then(|n| n.parse::<u8>().ok()) {
            Some(number @ 1..=64) => number,
            _ => return 255,
        },
    };
    128 + number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_become_codes_as_in_a_shell() {
        assert_eq!(signal_code("killed"), 137);
        assert_eq!(signal_code("signal 34"), 162);
        assert_eq!(signal_code("something"), 255);
    }
}
