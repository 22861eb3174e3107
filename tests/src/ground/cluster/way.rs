//! A way to the server that does not lead through the API server, for cases that kill what the usual way needs.

use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Node, Service};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};

use super::Cluster;

/// The Service that leads in.
const NAME: &str = "e2e-way-in";

/// A way to the server.
#[derive(Debug, Clone)]
pub struct Way {
    name: &'static str,
    domain: String,
}

impl Way {
    /// What it is.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// `HOST:PORT`.
    pub fn domain(&self) -> &str {
        &self.domain
    }
}

impl Cluster {
    /// A node's port that leads to the server's Service, where this machine reaches the nodes; else the usual way.
    pub async fn way_in(&self) -> Result<Way> {
        let setting = self.setting();
        let services: Api<Service> = Api::namespaced(self.client(), &setting.platform_namespace);
        let server = services.get(super::SERVER).await?;
        let spec = server.spec.context("a Service has a spec")?;
        let port = spec.ports.and_then(|ports| ports.into_iter().next()).context("the server's Service has no port")?;
        let way = serde_json::json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME},
            "spec": {"type": "NodePort", "selector": spec.selector,
                     "ports": [{"port": port.port, "targetPort": port.target_port}]},
        });
        let made = services.patch(NAME, &PatchParams::apply("e2e"), &Patch::Apply(&way)).await?;
        let port = made.spec.and_then(|s| s.ports).and_then(|p| p.first().and_then(|p| p.node_port));
        let port = port.context("the Service got no port on the nodes")?;
        let nodes: Api<Node> = Api::all(self.client());
        let mut nodes = nodes.list(&ListParams::default()).await?.items;
        // No case stops a control plane.
        nodes.sort_by_key(|node| !node.labels().contains_key("node-role.kubernetes.io/control-plane"));
        for address in nodes.iter().filter_map(address).take(3) {
            let domain = format!("{address}:{port}");
            // kube-proxy may need a moment for a new Service.
            for _ in 0..10 {
                let connect = tokio::net::TcpStream::connect(&domain);
                match tokio::time::timeout(Duration::from_secs(2), connect).await {
                    Ok(Ok(_)) => return Ok(Way { name: "a port of the nodes", domain }),
                    Ok(Err(_)) => tokio::time::sleep(Duration::from_millis(500)).await,
                    Err(_) => break,
                }
            }
        }
        Ok(Way { name: "port-forward, since this machine does not reach the nodes", domain: self.domain() })
    }

    /// Takes the way away again.
    pub(super) async fn close_way(&self) -> Result<()> {
        let services: Api<Service> = Api::namespaced(self.client(), &self.setting().platform_namespace);
        match services.delete(NAME, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            outcome => Ok(outcome.map(drop)?),
        }
    }
}

/// A node's address in the cluster's own network.
fn address(node: &Node) -> Option<String> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    addresses.iter().find(|address| address.type_ == "InternalIP").map(|address| address.address.clone())
}
