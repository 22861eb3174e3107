//! The `execd` binary: parses, initialises, runs.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use execd::config::{Config, Verb, normalise};
use execd::main_process::MainProcess;
use execd::serve::Daemon;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Threads for file work; the rest is one thread.
const BLOCKING_THREADS: usize = 8;
/// They stay: where a sandbox has used up its processes no thread can be made, and file work must go on.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);

fn main() -> ExitCode {
    let config = Config::parse_from(normalise(std::env::args_os()));
    execd::logging::init(config.log_level);
    execd::sys::raise_descriptors();
    if let Err(error) = execd::compat::apply(&config.clone3_compat) {
        eprintln!("execd: {error}");
        return ExitCode::FAILURE;
    }
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().max_blocking_threads(BLOCKING_THREADS).thread_keep_alive(FOR_EVER).build();
    let done = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        // One thread at least, while one can be had: the runtime gives up where it has none.
        runtime.spawn_blocking(|| ());
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
        Some(Verb::PreStart) => pre_start(config).await,
        Some(Verb::Alive) => {
            let alive = execd::alive::alive(config.port).await;
            Ok(if alive { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Some(Verb::Run { command }) => run_beside(config, command).await,
        None => serve(config).await,
    }
}

async fn pre_start(config: &Config) -> anyhow::Result<ExitCode> {
    let daemon = Daemon::new(config)?;
    daemon.pre_start().await?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(config: &Config) -> anyhow::Result<ExitCode> {
    adopt()?;
    let daemon = Daemon::new(config)?.bind(config).await?;
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
    let daemon = Daemon::new(config)?.bind(config).await?;
    daemon.pre_start().await?;
    let main = MainProcess::start(command).map_err(|e| {
        anyhow::anyhow!("cannot start {}: {e}", command.first().map(|c| c.to_string_lossy()).unwrap_or_default())
    })?;
    let stop = CancellationToken::new();
    let mut served = std::pin::pin!(daemon.serve(stop.clone()));
    let code = tokio::select! {
        code = main.wait() => code,
        ended = &mut served => {
            ended?;
            return Ok(ExitCode::FAILURE);
        }
    };
    // What still runs beside it ends as on any stop.
    stop.cancel();
    served.await?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// As PID 1 every orphan of the container becomes ours.
fn adopt() -> std::io::Result<()> {
    if std::process::id() == 1 { execd::exec::adopt_orphans() } else { Ok(()) }
}
