//! The parts of the embedded platform, put together in one process.

use std::collections::BTreeMap;
use std::future::pending;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use local_node::{Node, NodeConfig};
use server::{ApiKeys, Config as ServerConfig, Server};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::home::Home;
use super::keys::Keys;
use super::status::Connection;

/// How long a part may take to be ready, and to stop.
const PART_LIMIT: Duration = Duration::from_secs(20);

/// What a platform is told at its start.
pub struct Settings {
    /// Address of the lifecycle API.
    pub listen: SocketAddr,
    /// Address of the Kubernetes API.
    pub kube_listen: SocketAddr,
    /// Key of the lifecycle API.
    pub api_key: Option<String>,
    /// Images that stand in for others.
    pub stand_ins: BTreeMap<String, String>,
    /// Directories that pods may mount.
    pub host_paths: Vec<PathBuf>,
}

/// A running platform.
pub struct Platform {
    /// Address of the lifecycle API.
    pub domain: String,
    /// Its key.
    pub api_key: String,
    /// URL of the Kubernetes API.
    pub kubernetes: String,
    api: local_api::Api,
    stop: CancellationToken,
    parts: JoinSet<Result<()>>,
    node: Node,
}

/// Starts every part, and returns when each answers.
pub async fn start(home: &Home, settings: Settings) -> Result<Platform> {
    // The ports first: when one is taken, nothing has been started.
    let lifecycle = listen(settings.listen, "--listen").await?;
    let kubernetes = listen(settings.kube_listen, "--kube-listen").await?;
    let keys = Keys::load_or_make(home, settings.api_key.as_deref())?;
    let domain = lifecycle.local_addr()?.to_string();

    let api = local_api::Api::open(&home.api()).context("cannot open the objects of the Kubernetes API")?;
    let client = api.client("default");
    apply_crds(&client).await?;

    let stop = CancellationToken::new();
    let mut parts = JoinSet::new();
    let identity =
        local_api::Identity::load_or_generate(&home.identity()).context("cannot make the Kubernetes API's keys")?;
    let kube_address = kubernetes.local_addr()?;
    home.write_secret(&home.kubeconfig(), &identity.kubeconfig(kube_address, "default"))?;
    parts.spawn({
        let (api, stop) = (api.clone(), stop.clone());
        async move {
            let stopped = stop.cancelled_owned();
            api.serve(kubernetes, &identity, stopped).await.context("the Kubernetes API has ended")
        }
    });

    let node = Node::start(node_config(home, client.clone(), settings)?).await.context("cannot start the node")?;
    api.set_pod_streams(node.streams());

    let config = controller::Config::new(keys.daemon_seed()?, keys.token_secret()?);
    parts.spawn({
        let (client, stop) = (client.clone(), stop.clone());
        async move { controller::run(client, config, stop).await.context("the controller has ended") }
    });

    let server = Server::new(
        client,
        ServerConfig {
            api_keys: ApiKeys::new([keys.api_key.as_str()]),
            token_secret: keys.token_secret()?,
            ..ServerConfig::default()
        },
    );
    if !server.ready(PART_LIMIT).await {
        anyhow::bail!("the lifecycle server did not see the Kubernetes API within {PART_LIMIT:?}");
    }
    parts.spawn({
        let stop = stop.clone();
        async move { server.serve(lifecycle, stop).await.context("the lifecycle server has ended") }
    });

    let connection = Connection { domain: domain.clone(), api_key: keys.api_key.clone() };
    home.write_secret(&home.connection(), &toml::to_string(&connection)?)?;
    Ok(Platform {
        domain,
        api_key: keys.api_key,
        kubernetes: format!("https://{kube_address}"),
        api,
        stop,
        parts,
        node,
    })
}

impl Platform {
    /// Resolves when a part ends by itself, with the reason. Cancel safe.
    pub async fn failed(&mut self) -> anyhow::Error {
        match self.parts.join_next().await {
            Some(Ok(Ok(()))) => anyhow::anyhow!("a part of the platform has ended by itself"),
            Some(Ok(Err(error))) => error,
            Some(Err(error)) => anyhow::anyhow!(error).context("a part of the platform broke"),
            None => pending().await,
        }
    }

    /// Stops the parts. Pods run on.
    pub async fn stop(mut self) {
        self.node.stop().await;
        self.stop.cancel();
        let ended = async { while self.parts.join_next().await.is_some() {} };
        if tokio::time::timeout(PART_LIMIT, ended).await.is_err() {
            tracing::warn!("a part of the platform did not stop within {PART_LIMIT:?}");
        }
        if let Err(error) = self.api.sync() {
            tracing::warn!(%error, "the last objects may not be on the disk");
        }
    }
}

/// Removes what a platform that does not run has left: pods with all they have, and objects.
pub fn remove(home: &Home) -> Result<()> {
    super::runtime()?.block_on(Node::purge(&home.node())).context("cannot remove the pods")?;
    for path in [home.api(), home.connection(), home.kubeconfig()] {
        let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

async fn listen(address: SocketAddr, flag: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "{address} is in use by another program; free it, or choose another address with {flag} IP:PORT"
        ),
        _ => anyhow::anyhow!(error).context(format!("cannot listen on {address}")),
    })
}

async fn apply_crds(client: &Client) -> Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let by_us = PatchParams::apply("osb").force();
    for crd in api_types::crd::all() {
        crds.patch(&crd.name_any(), &by_us, &Patch::Apply(&crd))
            .await
            .with_context(|| format!("cannot install the resource definition {}", crd.name_any()))?;
    }
    Ok(())
}

fn node_config(home: &Home, client: Client, settings: Settings) -> Result<NodeConfig> {
    let binary = std::env::current_exe().context("cannot find this program's own file")?;
    let guests = binary.parent().context("this program lies in no directory")?.to_owned();
    for guest in ["execd", "task-executor"] {
        anyhow::ensure!(
            guests.join(guest).is_file(),
            "{guest} is not beside {}; keep osb, execd and task-executor in one directory",
            binary.display()
        );
    }
    let mut config = NodeConfig::new(home.node(), client, guests);
    config.stand_ins = settings.stand_ins;
    config.host_paths = settings.host_paths;
    Ok(config)
}
