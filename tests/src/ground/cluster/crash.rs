//! Killing a replica of the platform, and knowing it again afterwards.

use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use kube::runtime::watcher;
use kube::{Api, ResourceExt as _};

use super::{Cluster, Component};
use crate::watch::none_left;

/// The lease of the controller that leads.
const LEASE: &str = "2fa1c467.opensandbox.io";

/// The container that was killed.
#[derive(Debug, Clone)]
pub(super) struct Killed {
    pod: String,
    container: String,
}

impl Cluster {
    /// Kills one replica: the leading controller, or any server.
    pub(super) async fn kill(&self, component: Component) -> Result<Killed> {
        let namespace = &self.setting().platform_namespace;
        let pods: Api<Pod> = Api::namespaced(self.client(), namespace);
        let label = format!("app.kubernetes.io/component={}", component.label());
        let running: Vec<Pod> = pods
            .list(&ListParams::default().labels(&label))
            .await?
            .into_iter()
            .filter(|p| container(p).is_some())
            .collect();
        let leader = match component {
            Component::Controller => self.leader().await?,
            Component::Server => None,
        };
        let pod = running
            .iter()
            .find(|pod| leader.as_ref().is_some_and(|l| l.starts_with(&pod.name_any())))
            .or_else(|| running.first())
            .with_context(|| format!("no {} runs", component.label()))?;
        let killed = Killed { pod: pod.name_any(), container: container(pod).unwrap_or_default() };
        let node = pod.spec.as_ref().and_then(|s| s.node_name.clone()).context("a running pod has a node")?;
        match &self.0.nodes {
            Some(nodes) => {
                let id = killed.container.rsplit('/').next().unwrap_or_default();
                nodes.kill_container(&node, &format!("--id {id}"))?;
            }
            // As near to a crash as a kubeconfig comes.
            None => {
                pods.delete(&killed.pod, &DeleteParams::default().grace_period(0)).await?;
            }
        }
        Ok(killed)
    }

    /// Who leads, if somebody does.
    pub async fn leader(&self) -> Result<Option<String>> {
        let leases: Api<Lease> = Api::namespaced(self.client(), &self.setting().platform_namespace);
        let lease = leases.get_opt(LEASE).await?;
        Ok(lease.and_then(|l| l.spec).and_then(|s| s.holder_identity).filter(|holder| !holder.is_empty()))
    }

    /// Waits until the killed container is gone from its pod, and all replicas are available.
    pub(super) async fn back(&self, killed: &Killed) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client(), &self.setting().platform_namespace);
        let config = watcher::Config::default().fields(&format!("metadata.name={}", killed.pod));
        let alive = |pod: &Pod| container(pod).as_ref() == Some(&killed.container);
        none_left(Duration::from_secs(60), pods, config, "killed container", alive).await?;
        self.ready().await
    }
}

/// Id of the running container of a platform's pod.
fn container(pod: &Pod) -> Option<String> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let running = statuses.iter().find(|s| s.state.as_ref().is_some_and(|s| s.running.is_some()))?;
    running.container_id.clone()
}
