//! The controller as a program for a real cluster.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use controller::{Config, LeaderElection};
use tokio_util::sync::CancellationToken;

/// Keeps Pools warm and gives their pods to BatchSandboxes.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Options {
    /// Only namespace to look after; all of them when absent.
    #[arg(long, env = "OPENSANDBOX_NAMESPACE")]
    namespace: Option<String>,
    /// File with the 32-byte secret seed of the signing key.
    #[arg(long, env = "OPENSANDBOX_SIGNER_SEED_FILE")]
    signer_seed_file: PathBuf,
    /// File with the 32-byte secret of which execd tokens are derived.
    #[arg(long, env = "OPENSANDBOX_TOKEN_SECRET_FILE")]
    token_secret_file: PathBuf,
    /// Objects worked on at once.
    #[arg(long, env = "OPENSANDBOX_CONCURRENCY", default_value_t = 32)]
    concurrency: usize,
    /// Lead only while holding a Lease.
    #[arg(long, env = "OPENSANDBOX_LEADER_ELECT")]
    leader_elect: bool,
    /// Namespace of the Lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "opensandbox-system")]
    lease_namespace: String,
    /// Our name among the candidates; the pod's name.
    #[arg(long, env = "POD_NAME", default_value = "opensandbox-controller")]
    identity: String,
}

fn secret(path: &PathBuf) -> anyhow::Result<[u8; 32]> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    bytes.try_into().map_err(|b: Vec<u8>| anyhow::anyhow!("{} has {} bytes, not 32", path.display(), b.len()))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    // Nothing else in the process has chosen TLS yet; a second choice would be the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = Config::new(secret(&options.signer_seed_file)?, secret(&options.token_secret_file)?);
    config.namespace = options.namespace;
    config.concurrency = options.concurrency;
    config.leader_election = options.leader_elect.then(|| LeaderElection {
        namespace: options.lease_namespace,
        name: LeaderElection::LEASE_NAME.to_owned(),
        identity: format!("{}_{}", options.identity, uuid::Uuid::new_v4()),
        duration: Duration::from_secs(15),
    });
    let client = kube::Client::try_default().await.context("finding the cluster")?;
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        stop.cancel();
    });
    controller::run(client, config, shutdown).await.context("the controller ended")
}
