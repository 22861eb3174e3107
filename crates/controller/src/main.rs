//! `opensandbox-controller`: the controller as a program for a cluster.

mod options;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use controller::{Controller, Metrics};
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use telemetry::{ApiRequests, Readiness, Registry, admin, logs, signals};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::options::{Options, OptionsError};

/// Exit code of a program that was told what it cannot use.
const UNUSABLE: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::read(std::env::args_os()) {
        Ok(options) => options,
        Err(OptionsError::Usage(usage)) => usage.exit(),
        Err(error) => return unusable(&error),
    };
    if let Err(error) = logs::init(&options.log_level, options.log_format) {
        return unusable(&error);
    }
    match run(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn unusable(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(UNUSABLE)
}

async fn run(options: Options) -> anyhow::Result<()> {
    let shutdown = signals::terminate().context("installing signal handlers")?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        namespaces = if options.config.namespaces.is_empty() { "*".to_owned() } else { options.config.namespaces.join(",") },
        leader_election = ?options.config.leader_election,
        concurrency = options.config.concurrency,
        health = ?options.health,
        metrics = ?options.metrics,
        log_level = options.log_level,
        "starting"
    );
    if !options.ignored.is_empty() {
        tracing::warn!(flags = options.ignored.join(" "), "these flags have no effect here");
    }
    // Nothing else in the process has chosen TLS yet; a second choice would be the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut registry = Registry::with_prefix("opensandbox");
    let metrics = Metrics::register(&mut registry);
    let requests = ApiRequests::register(registry.sub_registry_with_prefix("controller"));
    let client = client(&options, &requests).await.context("finding the cluster")?;
    let readiness = Readiness::default();
    let (registry, pages, stop_pages) = (Arc::new(registry), TaskTracker::new(), CancellationToken::new());
    for address in addresses(&options) {
        let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
        pages.spawn(admin::serve(listener, registry.clone(), readiness.clone(), stop_pages.clone()));
    }
    let controller = Controller::new(client, options.config).with_metrics(metrics).with_readiness(readiness);
    let ended = controller.run(shutdown).await.context("the controller ended");
    stop_pages.cancel();
    pages.close();
    pages.wait().await;
    tracing::info!("stopped");
    ended
}

/// Where the admin pages are served, each address once.
fn addresses(options: &Options) -> Vec<SocketAddr> {
    let mut addresses: Vec<SocketAddr> = options.health.into_iter().chain(options.metrics).collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

/// A client that is counted, says who it is, and tries nothing again by itself: a retry would pass by the leader's fence.
async fn client(options: &Options, requests: &ApiRequests) -> anyhow::Result<kube::Client> {
    let mut config = match &options.kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path)?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?
        }
        None => kube::Config::infer().await?,
    };
    config.default_retry = false;
    let agent = concat!("opensandbox-controller/", env!("CARGO_PKG_VERSION"));
    config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(agent)));
    Ok(ClientBuilder::try_from(config)?.with_layer(requests).build())
}
