//! A port of this machine that leads to a Service's ready pods, through the API server.
//!
//! As `kubectl port-forward service/NAME` does, but each connection goes to a pod that is ready then, as the Service
//! itself would send it. So it outlives the pods it leads to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, bail};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Api, Client};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The port; dropping it closes it.
pub struct Forward {
    address: SocketAddr,
    tasks: [JoinHandle<()>; 2],
}

/// A pod and its port.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    pod: String,
    port: u16,
}

impl Forward {
    /// Listens on a free port of this machine for a Service's first port.
    pub async fn open(client: Client, namespace: &str, service: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
        let config = watcher::Config::default().labels(&format!("kubernetes.io/service-name={service}"));
        let (reader, writer) = reflector::store();
        let watch = watcher(slices, config).default_backoff().reflect(writer);
        let watching = tokio::spawn(watch.for_each(|_| std::future::ready(())));
        let pods: Api<Pod> = Api::namespaced(client, namespace);
        let turn = Arc::new(AtomicUsize::new(0));
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let slices: Vec<Arc<EndpointSlice>> = reader.state();
                let targets = ready(slices.iter().map(AsRef::as_ref), turn.fetch_add(1, Ordering::Relaxed));
                let pods = pods.clone();
                tokio::spawn(async move {
                    // A connection that leads nowhere is closed, which is what its client has to bear with.
                    if let Err(error) = lead(&pods, &targets, stream).await {
                        eprintln!("port-forward: {error:#}");
                    }
                });
            }
        });
        Ok(Self { address, tasks: [watching, serving] })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The ready pods of a Service, another one first each time.
fn ready<'a>(slices: impl Iterator<Item = &'a EndpointSlice>, turn: usize) -> Vec<Target> {
    let mut targets: Vec<Target> = slices
        .flat_map(|slice| {
            let port = slice.ports.iter().flatten().find_map(|p| p.port).and_then(|p| u16::try_from(p).ok());
            slice.endpoints.iter().flatten().filter_map(move |endpoint| {
                let ready = endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
                let pod = endpoint.target_ref.as_ref().and_then(|t| t.name.clone());
                Some(Target { pod: pod.filter(|_| ready)?, port: port? })
            })
        })
        .collect();
    if !targets.is_empty() {
        let first = turn % targets.len();
        targets.rotate_left(first);
    }
    targets
}

async fn lead(pods: &Api<Pod>, targets: &[Target], mut stream: TcpStream) -> Result<()> {
    let mut last = None;
    for Target { pod, port } in targets {
        match pods.portforward(pod, &[*port]).await {
            Ok(mut forwarder) => {
                let mut upstream = forwarder.take_stream(*port).context("no stream of the port")?;
                // Either side may end the connection as it likes.
                let _ = copy_bidirectional(&mut stream, &mut upstream).await;
                drop(upstream);
                let _ = forwarder.join().await;
                return Ok(());
            }
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error).context("no pod takes the connection"),
        None => bail!("the Service has no ready pod"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_pods_take_turns_and_others_get_nothing() {
        let slice: EndpointSlice = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "s"}, "addressType": "IPv4", "ports": [{"port": 8080}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "targetRef": {"name": "a"}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false}, "targetRef": {"name": "b"}},
                {"addresses": ["10.0.0.3"], "targetRef": {"name": "c"}},
            ],
        }))
        .unwrap();
        let names = |turn| ready([&slice].into_iter(), turn).into_iter().map(|t| t.pod).collect::<Vec<_>>();
        assert_eq!(names(0), ["a", "c"]);
        assert_eq!(names(1), ["c", "a"]);
        assert!(ready([].into_iter(), 3).is_empty());
    }
}
