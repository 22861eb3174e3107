//! `opensandbox-server`: the lifecycle server as a program of its own.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kube::client::ClientBuilder;
use server::settings::{self, Asked, Program, SettingsError};
use server::{Server, Tls};
use telemetry::{ApiRequests, Registry, admin, logs, signals};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How long the start waits for Kubernetes before it says that it still does.
const FIRST_VIEW: Duration = Duration::from_secs(10);
/// Exit code of a configuration that can't be used.
const BAD_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    // Nothing else in the process has chosen TLS yet; a second choice would be the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let asked = settings::read(std::env::args_os(), |name| std::env::var(name).ok());
    let outcome = asked.map_err(anyhow::Error::from).and_then(|asked| match asked {
        Asked::Explain(text) => {
            print!("{text}");
            Ok(())
        }
        Asked::Serve(program) => run(*program),
    });
    let Err(error) = outcome else {
        return ExitCode::SUCCESS;
    };
    let bad = error.downcast_ref::<SettingsError>();
    match bad {
        Some(SettingsError(problems)) => problems.iter().for_each(|problem| eprintln!("error: {problem}")),
        None => eprintln!("error: {error:#}"),
    }
    if bad.is_some() { ExitCode::from(BAD_CONFIGURATION) } else { ExitCode::FAILURE }
}

#[tokio::main]
async fn run(program: Program) -> anyhow::Result<()> {
    let started = logs::init(&program.log_level, program.log_format);
    started.map_err(|error| SettingsError(vec![format!("log.level: {error}")]))?;
    program.notices.iter().for_each(|notice| tracing::warn!("{notice}"));
    let kubernetes = program.kubernetes().await?;
    tracing::info!(kubernetes = %kubernetes.cluster_url, namespace = program.config.namespace, version = env!("CARGO_PKG_VERSION"), "starting");
    let mut registry = Registry::with_prefix("opensandbox");
    let requests = ApiRequests::register(registry.sub_registry_with_prefix("server"));
    let builder = ClientBuilder::try_from(kubernetes).context("can't make a client of the Kubernetes API")?;
    let client = builder.with_layer(&requests).build();
    let tls = program.tls.clone().map(Tls::new).transpose()?;
    let listen = async |host: &str, port: u16| {
        TcpListener::bind((host, port)).await.with_context(|| format!("can't listen on {host}:{port}"))
    };
    let listener = listen(&program.host, program.port).await?;
    let admin_listener = match program.admin {
        Some(address) => Some(listen(&address.ip().to_string(), address.port()).await?),
        None => None,
    };
    let stop = signals::terminate()?;
    let server = Server::new(client, program.config);
    if let Some(file) = program.api_keys_file {
        server.follow_keys(file, program.fixed_keys);
    }
    if let Some(file) = program.tenants_file {
        server.follow_tenants(file);
    }
    if let Some(tls) = &tls {
        server.follow_certificate(tls);
    }
    server.register(&mut registry);
    let admin_stop = CancellationToken::new();
    let admin = admin_listener.map(|listener| {
        let (registry, readiness) = (Arc::new(registry), server.readiness());
        tokio::spawn(admin::serve(listener, registry, readiness, admin_stop.clone()))
    });
    if let Some(key) = &program.made_key {
        // The one place where a key is shown: its owner has no other way to learn it.
        println!("API key of this run: {key}");
    }
    tracing::info!(address = %listener.local_addr()?, tls = tls.is_some(), "listening");
    let serving = server.serve_with(listener, tls, stop);
    let first_view = async {
        if !server.ready(FIRST_VIEW).await {
            let (_, report) = server.readiness().report();
            tracing::warn!(report, "not ready yet");
        }
    };
    let (served, ()) = tokio::join!(serving, first_view);
    admin_stop.cancel();
    if let Some(admin) = admin {
        let _ = admin.await;
    }
    tracing::info!("stopped");
    Ok(served?)
}
