//! `osb command run`: the command's output to our own, its exit code as our own.

use std::{io::Write, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::Args;
use futures::StreamExt;
use opensandbox::{Client, Commands, Event, EventStream, ExecutionError, OutputMessage, RunCommand};
use serde_json::json;
use tokio::io::AsyncReadExt;

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
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
}

/// A command of words: one is shell text, several are a program and its arguments.
pub fn of_words(words: &[String], argv: bool) -> Result<RunCommand> {
    Ok(match words {
        words if argv => RunCommand::argv(words),
        [text] => RunCommand::shell(text),
        words => {
            RunCommand::shell(shlex::try_join(words.iter().map(String::as_str)).context("the command has a NUL byte")?)
        }
    })
}

/// Runs it.
pub async fn run(client: &Client, format: Option<Format>, options: Options) -> Result<ExitCode> {
    let printer =
        if options.background { Some(Printer::structured(format)?) } else { only_raw(format).map(|()| None)? };
    let mut command = of_words(&options.command, options.argv)?;
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
    foreground(&commands, command, options.interactive).await
}

/// Runs it to its end, its output and input being ours.
pub async fn foreground(commands: &Commands, command: RunCommand, interactive: bool) -> Result<ExitCode> {
    let command = if interactive { command.open_stdin() } else { command };
    let events = commands.stream(command.exact()).await?;
    follow(commands, events, interactive).await
}

/// Passes standard input on until it ends or the command does.
async fn pass_input(commands: Commands, id: String) {
    let mut input = tokio::io::stdin();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let (bytes, end) = match input.read(&mut buffer).await {
            Ok(0) | Err(_) => (Vec::new(), true),
            Ok(count) => (buffer[..count].to_vec(), false),
        };
        if let Err(error) = commands.write_stdin(&id, bytes, end).await {
            tracing::debug!(%error, "the command takes no input any more");
            return;
        }
        if end {
            return;
        }
    }
}

/// Copies output until the end. The first Ctrl-C stops the command, the second stops waiting for it.
pub async fn follow(commands: &Commands, mut events: EventStream, interactive: bool) -> Result<ExitCode> {
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
            Some(Ok(Event::Started { id, .. })) if interactive => {
                tokio::spawn(pass_input(commands.clone(), id));
            }
            Some(Ok(Event::Gap { bytes, .. })) => notice(&format!("warning: {bytes} bytes of output are lost"))?,
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
fn print(mut out: impl Write, message: &OutputMessage) -> Result<()> {
    let mut bytes = Vec::new();
    message.write_to(&mut bytes);
    out.write_all(&bytes)?;
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
