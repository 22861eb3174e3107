//! `osb shell`: a terminal of a sandbox in this one.

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Args;
use opensandbox::{AttachTerminal, NewTerminal, Terminal, TerminalEnd, TerminalStream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Stdin},
    signal::unix::{SignalKind, signal},
    time::Instant,
};

use crate::{
    cli::Globals,
    connection,
    output::{Printer, notice, only_raw},
};

/// Control and `]`, as telnet has it.
const DETACH: u8 = 0x1d;
/// End of input, as typed.
const END_OF_INPUT: u8 = 0x04;
/// How long a connection that broke is sought to be made again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// Options of `osb shell`.
#[derive(Debug, Args)]
#[command(after_help = "Ctrl-] leaves the terminal with what runs in it; --terminal comes back.")]
pub struct Options {
    /// Id of the sandbox
    id: String,
    /// Come back to this terminal
    #[arg(long, value_name = "ID", conflicts_with_all = ["command", "workdir"])]
    terminal: Option<String>,
    /// List the terminals that there are
    #[arg(long, conflicts_with_all = ["command", "workdir", "terminal"])]
    list: bool,
    /// Take the place of whoever types there
    #[arg(long, requires = "terminal")]
    takeover: bool,
    /// Only watch
    #[arg(long, requires = "terminal", conflicts_with = "takeover")]
    watch: bool,
    /// Shell text to run instead of a shell
    #[arg(short, long, value_name = "TEXT")]
    command: Option<String>,
    /// Working directory
    #[arg(short, long, value_name = "PATH")]
    workdir: Option<String>,
}

/// The terminal of this side in raw mode; as it was when dropped.
struct Raw;

impl Raw {
    fn enter() -> Result<Option<Self>> {
        if !std::io::stdin().is_terminal() {
            return Ok(None);
        }
        crossterm::terminal::enable_raw_mode().context("the terminal cannot be put into raw mode")?;
        Ok(Some(Self))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = crossterm::terminal::disable_raw_mode();
    }
}

fn size() -> Option<(u16, u16)> {
    crossterm::terminal::size().ok().filter(|(columns, rows)| *columns > 0 && *rows > 0)
}

/// Why being at the terminal ended.
enum Left {
    Detached,
    Ended(TerminalEnd),
}

/// Runs it.
pub async fn run(globals: &Globals, options: Options) -> Result<ExitCode> {
    let (client, _) = connection::connect(globals)?;
    let terminals = client.attach(&options.id).terminals();
    if options.list {
        let printer = Printer::structured(globals.output)?;
        let all = terminals.list().await?;
        let row =
            |t: &opensandbox::TerminalInfo| vec![t.id.clone(), t.running.to_string(), t.output_offset.to_string()];
        printer.list(&all, &all, &["TERMINAL", "RUNNING", "BYTES"], row, "there are no terminals")?;
        return Ok(ExitCode::SUCCESS);
    }
    only_raw(globals.output)?;
    let terminal = match &options.terminal {
        Some(id) => terminals.get(id),
        None => {
            let mut new = NewTerminal::new();
            if let Some((columns, rows)) = size() {
                new = new.size(columns, rows);
            }
            if let Some(directory) = options.workdir {
                new = new.cwd(directory);
            }
            if let Some(command) = options.command {
                new = new.command(command);
            }
            terminals.create(new).await?
        }
    };
    let mut how = AttachTerminal::new();
    if options.takeover {
        how = how.takeover();
    }
    if options.watch {
        how = how.viewer();
    }
    let mut stream = terminal.attach_with(how).await?;
    let raw = Raw::enter()?;
    let left = loop {
        match sit(&mut stream, options.watch).await? {
            Left::Ended(TerminalEnd::Broken) => {
                // Our own place may not be free yet, as far as the daemon knows.
                let how = if options.watch { how } else { how.takeover() };
                stream = again(&terminal, how.since(stream.offset())).await?;
            }
            left => break left,
        }
    };
    drop(raw);
    finish(&options.id, &terminal, left).await
}

async fn finish(sandbox: &str, terminal: &Terminal, left: Left) -> Result<ExitCode> {
    match left {
        Left::Detached => {
            notice(&format!("\nleft; come back with: osb shell {sandbox} --terminal {}", terminal.id()))?;
            Ok(ExitCode::SUCCESS)
        }
        Left::Ended(TerminalEnd::Exited(code)) => {
            // Nobody comes back to a shell that has ended.
            terminal.close().await?;
            Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
        }
        Left::Ended(TerminalEnd::TakenOver) => {
            notice("\nsomebody else took the terminal over")?;
            Ok(ExitCode::FAILURE)
        }
        Left::Ended(_) => {
            notice("\nthe terminal was closed")?;
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn again(terminal: &Terminal, how: AttachTerminal) -> Result<TerminalStream> {
    let until = Instant::now() + PATIENCE;
    loop {
        match terminal.attach_with(how).await {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() > until || !error.is_retryable() => return Err(error.into()),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Copies both ways until one side ends.
async fn sit(stream: &mut TerminalStream, only_watch: bool) -> Result<Left> {
    let mut resized = signal(SignalKind::window_change())?;
    let mut input = tokio::io::stdin();
    let typing = std::io::stdin().is_terminal();
    let mut more = true;
    let (mut printed, mut typed) = (vec![0; 32 << 10], vec![0; 4 << 10]);
    if let (Some((columns, rows)), false) = (size(), only_watch) {
        stream.resize(columns, rows).await?;
    }
    loop {
        tokio::select! {
            count = stream.read(&mut printed) => match count? {
                0 => return Ok(Left::Ended(stream.end().unwrap_or(TerminalEnd::Broken))),
                count => print(&printed[..count])?,
            },
            count = read(&mut input, &mut typed), if more => {
                let bytes = &typed[..count?];
                more = !bytes.is_empty();
                let detach = bytes.iter().position(|byte| *byte == DETACH).filter(|_| typing);
                if !only_watch {
                    let bytes = if more { &bytes[..detach.unwrap_or(bytes.len())] } else { &[END_OF_INPUT][..] };
                    // A connection that broke is found out by reading.
                    let _ = stream.write_all(bytes).await;
                }
                if detach.is_some() {
                    return Ok(Left::Detached);
                }
            }
            _ = resized.recv() => if let (Some((columns, rows)), false) = (size(), only_watch) {
                let _ = stream.resize(columns, rows).await;
            },
        }
    }
}

async fn read(input: &mut Stdin, buffer: &mut [u8]) -> Result<usize> {
    input.read(buffer).await.context("standard input cannot be read")
}

fn print(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}
