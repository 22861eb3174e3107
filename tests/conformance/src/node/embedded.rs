//! The embedded ground: an API in memory served over HTTPS on loopback, and a node of its own below a temporary directory.

use std::path::Path;

use anyhow::Context as _;
use local_node::{Node, NodeConfig};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::ground::Ground;
use super::image;

/// An embedded cluster of one run.
pub struct Embedded {
    /// What the cases need of it.
    pub ground: Ground,
    /// Whether `busybox` is one, or the machine's own files stand in for it.
    pub busybox: bool,
    node: Node,
    server: JoinHandle<()>,
    dir: tempfile::TempDir,
}

impl Embedded {
    /// Starts it. An error says what the machine lacks.
    pub async fn start() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir_in("/var/tmp").context("no directory for the node")?;
        let api = local_api::Api::in_memory();
        let identity = local_api::Identity::load_or_generate(&dir.path().join("tls"))?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let kubeconfig = identity.kubeconfig(listener.local_addr()?, "default");
        let served = api.clone();
        let server = tokio::spawn(async move {
            if let Err(error) = served.serve(listener, &identity, std::future::pending()).await {
                eprintln!("the embedded API has ended: {error}");
            }
        });
        let kubeconfig = kube::config::Kubeconfig::from_yaml(&kubeconfig)?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
        let ground = Ground { client: config.try_into()?, namespace: "conformance".to_owned() };
        let busybox = image::busybox();
        let mut config = NodeConfig::new(dir.path().join("node"), api.client("default"), "/nonexistent");
        if busybox.is_none() {
            for name in ["busybox:latest", "docker.io/library/busybox:latest"] {
                config.stand_ins.insert(name.to_owned(), "host".to_owned());
            }
        }
        let node = Node::start(config).await?;
        api.set_pod_streams(node.streams());
        if let Some(program) = &busybox {
            let archive = dir.path().join("busybox.tar");
            image::write(program, &archive).context("cannot make the image")?;
            node.images().import(&archive, Some("busybox:latest")).await?;
        }
        ground.make_namespace().await?;
        Ok(Self { ground, busybox: busybox.is_some(), node, server, dir })
    }

    /// Ends it and everything that ran on it.
    pub async fn end(self) -> anyhow::Result<()> {
        self.node.stop().await;
        self.server.abort();
        Node::purge(&self.dir.path().join("node")).await?;
        Ok(())
    }

    /// Where the node keeps its pods.
    pub fn pods_dir(&self) -> std::path::PathBuf {
        Path::new(self.dir.path()).join("node/pods")
    }
}
