//! The cluster ground: a platform that helm installed, shared by all cases.

mod case;
mod crash;
mod helm;
mod way;

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};

pub use case::Case;
pub use helm::Helm;
pub use way::Way;

use super::forward::Forward;
use super::{Component, Need, Nodes, Setting};
use crate::watch::until;

/// Name of the server's Service and Deployment.
pub const SERVER: &str = "opensandbox-server";
/// Name of the controller's Deployment.
pub const CONTROLLER: &str = "opensandbox-controller-manager";
/// Secret with the platform's keys.
const KEYS: &str = "opensandbox-keys";

/// A reached cluster.
#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

struct Inner {
    setting: Setting,
    client: Client,
    forward: Forward,
    api_key: Mutex<String>,
    nodes: Option<Nodes>,
    workers: usize,
}

impl Cluster {
    /// Reaches the cluster, and the server on it.
    pub async fn reach(setting: Setting) -> Result<Self> {
        let client = crate::platform::client(&setting.kubeconfig).await?;
        let forward = Forward::open(client.clone(), &setting.platform_namespace, SERVER).await?;
        let nodes = setting.kind.as_ref().map(|name| Nodes::new(name, setting.node_started.clone()));
        let workers = match &nodes {
            Some(nodes) => nodes.of_role("worker").context("docker does not show the kind cluster's nodes")?.len(),
            None => 0,
        };
        let inner = Inner { setting, client, forward, api_key: Mutex::default(), nodes, workers };
        let cluster = Self(Arc::new(inner));
        cluster.refresh().await?;
        Ok(cluster)
    }

    /// Where it is.
    pub fn setting(&self) -> &Setting {
        &self.0.setting
    }

    /// A client of its API.
    pub fn client(&self) -> Client {
        self.0.client.clone()
    }

    /// helm on its release.
    pub fn helm(&self) -> Helm<'_> {
        Helm::new(&self.0.setting)
    }

    /// Its nodes, where they are containers.
    pub fn nodes(&self) -> Result<&Nodes> {
        self.0.nodes.as_ref().context("the cluster's nodes are not containers of this machine")
    }

    /// kubectl in the namespace of sandboxes.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new("kubectl");
        command.env("KUBECONFIG", &self.0.setting.kubeconfig).arg("--namespace").arg(&self.0.setting.namespace);
        command
    }

    /// Why the cluster cannot give what is needed, if so.
    pub fn lacks(&self, need: Need) -> Option<String> {
        let kind = self.0.nodes.is_some();
        let reason = match need {
            Need::ApiServer if !kind => "the API server can be killed only where it is a kind cluster's",
            Need::Nodes if !kind => "nodes can be stopped only where they are a kind cluster's",
            Need::Nodes if self.0.workers < 2 => "the kind cluster has fewer than two workers",
            Need::Audit if self.0.setting.audit_log.is_none() => {
                "the API server writes no audit log; `cargo xtask e2e --audit` turns it on in a kind cluster"
            }
            need => return need.cluster().map(str::to_owned),
        };
        Some(reason.to_owned())
    }

    /// Reads the key anew, as after an installation.
    pub async fn refresh(&self) -> Result<()> {
        let secrets: Api<Secret> = Api::namespaced(self.client(), &self.0.setting.platform_namespace);
        let secret = secrets.get(KEYS).await.context("the platform's keys")?;
        let key = secret.data.as_ref().and_then(|d| d.get("api-key")).context("no api-key in the Secret")?;
        let text = std::str::from_utf8(&key.0)?;
        // A line may say more about its key.
        let first = text.lines().next().and_then(|line| line.split_whitespace().next()).unwrap_or_default();
        ensure!(!first.is_empty(), "the api-key in the Secret is empty");
        *self.0.api_key.lock().unwrap_or_else(PoisonError::into_inner) = first.to_owned();
        Ok(())
    }

    /// Waits until all replicas of both Deployments are new and available.
    pub async fn ready(&self) -> Result<()> {
        for name in [CONTROLLER, SERVER] {
            let deployments: Api<Deployment> = Api::namespaced(self.client(), &self.0.setting.platform_namespace);
            until(deployments, name, "rolled out", |d| {
                let wanted = d.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
                d.status.as_ref().is_some_and(|s| {
                    s.observed_generation >= d.metadata.generation
                        && s.updated_replicas == Some(wanted)
                        && s.available_replicas == Some(wanted)
                        && s.replicas == Some(wanted)
                })
            })
            .await?;
        }
        Ok(())
    }

    /// `HOST:PORT` of the server, from this machine.
    pub fn domain(&self) -> String {
        self.0.forward.address().to_string()
    }

    /// Key of the server.
    pub fn api_key(&self) -> String {
        self.0.api_key.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gathers what tells of a failure.
    pub fn gather(&self, directory: &Path) -> Result<()> {
        let setting = &self.0.setting;
        let kubectl = || {
            let mut command = Command::new("kubectl");
            command.env("KUBECONFIG", &setting.kubeconfig);
            command
        };
        crate::evidence::gather(kubectl, &[&setting.platform_namespace, &setting.namespace], directory)
    }

    /// Begins a case: what is there now is not the case's.
    pub async fn case(&self) -> Result<Case> {
        Case::begin(self.clone()).await
    }
}

impl Component {
    /// The component's Deployment.
    pub fn deployment(self) -> &'static str {
        match self {
            Self::Controller => CONTROLLER,
            Self::Server => SERVER,
        }
    }

    /// Value of the component's label, which is its container's name too.
    pub fn label(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Server => "server",
        }
    }
}
