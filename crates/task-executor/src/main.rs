//! Parses, initialises, runs.

use std::io::IsTerminal as _;
use std::path::Path;

use anyhow::Context as _;
use api_types::names::env;
use clap::Parser as _;
use task_executor::config::{Args, daemon_key, two_dashes};
use task_executor::{http, init, manager, supervise};

fn main() -> anyhow::Result<()> {
    let args: Vec<_> = std::env::args_os().collect();
    if let [_, word, dir] = args.as_slice()
        && word == supervise::ARGUMENT
    {
        return supervise::main(Path::new(dir)).context("supervising a task");
    }
    let args = Args::parse_from(two_dashes(args));
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let var = |name: &str| std::env::var(name).ok();
    let key = daemon_key(var(env::DAEMON_KEY).as_deref(), var(env::POD_UID).as_deref())?;
    let mode = args.mode(var("ENABLE_SIDECAR_MODE").as_deref());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(8).build()?;
    runtime.block_on(async {
        init::prepare()?;
        let manager = manager::open(&args, mode, var(env::POD_UID))?;
        manager.recover().await;
        http::serve(args.listen_addr, http::App { manager, key }).await
    })
}
