//! The `execd` binary: parses, initialises, runs.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use execd::config::{Config, Verb, normalise};
use execd::main_process::MainProcess;
use execd::serve::Daemon;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Threads for file work; the rest is one thread.
const BLOCKING_THREADS: usize = 8;

fn main() -> ExitCode {
    let config = Config::parse_from(normalise(std::env::args_os()));
    execd::logging::init(config.log_level);
    execd::sys::raise_descriptors();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING_THREADS).build();
    let done = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let done = runtime.block_on(run(&config));
        // A blocking read of a dead disk must not hold the end.
        runtime.shutdown_background();
        done
    });
    done.unwrap_or_else(|error| {
        eprintln!("execd: {error:#}");
        ExitCode::FAILURE
    })
}

async fn run(config: &Config) -> anyhow::Result<ExitCode> {
    match &config.verb {
        Some(Verb::Version) => {
            println!("execd {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
        Some(Verb::Alive) => {
            let alive = execd::alive::alive(config.port).await;
            Ok(if alive { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Some(Verb::Run { command }) => run_beside(config, command).await,
        None => serve(config).await,
    }
}

async fn serve(config: &Config) -> anyhow::Result<ExitCode> {
    adopt()?;
    let daemon = Daemon::bind(config).await?;
    let stop = CancellationToken::new();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told = async {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        stop.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        served = daemon.serve(stop.clone()) => served?,
        () = told => {}
    }
    Ok(ExitCode::SUCCESS)
}

async fn run_beside(config: &Config, command: &[OsString]) -> anyhow::Result<ExitCode> {
    adopt()?;
    let daemon = Daemon::bind(config).await?;
    let main = MainProcess::start(command).map_err(|e| {
        anyhow::anyhow!("cannot start {}: {e}", command.first().map(|c| c.to_string_lossy()).unwrap_or_default())
    })?;
    let code = tokio::select! {
        code = main.wait() => code,
        served = daemon.serve(CancellationToken::new()) => {
            served?;
            1
        }
    };
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// As PID 1 every orphan of the container becomes ours.
fn adopt() -> std::io::Result<()> {
    if std::process::id() == 1 { execd::exec::adopt_orphans() } else { Ok(()) }
}
