//! `opensandbox-server`: the lifecycle server as a program of its own.

mod options;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;
use server::Server;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::options::Options;

/// How long the start waits for Kubernetes before it says that it still does.
const FIRST_VIEW: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
        )
        .with_writer(std::io::stderr)
        .init();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let settings = Options::parse().settle()?;
    let client = settings.client().await?;
    let server = Server::new(client, settings.config);
    let listener = TcpListener::bind((settings.host.as_str(), settings.port))
        .await
        .with_context(|| format!("can't listen on {}:{}", settings.host, settings.port))?;
    if let Some(key) = &settings.made_key {
        // The one place where a key is shown: its owner has no other way to learn it.
        println!("API key of this run: {key}");
    }
    tracing::info!(address = %listener.local_addr()?, "listening");
    if !server.ready(FIRST_VIEW).await {
        tracing::warn!("Kubernetes has not answered yet; sandboxes and pools are not known");
    }
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stopping = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stopping.cancel();
    });
    Ok(server.serve(listener, stop).await?)
}
