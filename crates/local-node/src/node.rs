//! The node: starts, finds what an earlier one left running, and gives each of its pods a worker.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Binding, ConfigMap, ObjectReference, Pod, Secret};
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use local_api::streams::PodStreams;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::cgroup::{self, Hierarchies};
use crate::env::NodeFacts;
use crate::images::{ImageConfig, ImageError, ImageStore};
use crate::network::{self, Network, NetworkConfig, NetworkError};
use crate::pod::context::Context;
use crate::pod::events::{Kind, Recorder};
use crate::pod::stop;
use crate::pod::worker::Handle;
use crate::registration::{self, Capacity};
use crate::requirements::{self, Missing};
use crate::schedule::{self, Room};
use crate::shim::client::Shim;
use crate::shim::proto::Request;
use crate::streams::Streams;
use crate::volumes::objects::ObjectKind;
use crate::volumes::{VolumeConfig, Volumes};

/// How a node is to be.
#[derive(Clone)]
pub struct NodeConfig {
    /// Where everything of the node is kept.
    pub state_dir: PathBuf,
    /// Name of the Node object.
    pub node_name: String,
    /// The Kubernetes API.
    pub client: kube::Client,
    /// Directory that holds the programs `execd` and `task-executor`.
    pub guest_dir: PathBuf,
    /// What stands in for images that cannot be had: a name, or `*`, and `host`.
    pub stand_ins: BTreeMap<String, String>,
    /// Paths of the machine that `hostPath` may name.
    pub host_paths: Vec<PathBuf>,
    /// The pods' network; `None` chooses a free one.
    pub pod_cidr: Option<Ipv4Net>,
    /// Most pods.
    pub max_pods: u32,
    /// Most processes in a pod.
    pub pids_limit: u64,
    /// Size at which a container's log is rotated.
    pub log_max_bytes: u64,
    /// Files kept of a container's log.
    pub log_max_files: u32,
    /// Whether privileged containers are allowed.
    pub allow_privileged: bool,
    /// How many pods start or end something at once; `None` is twice the processors.
    pub concurrency: Option<usize>,
}

impl NodeConfig {
    /// The defaults.
    pub fn new(state_dir: impl Into<PathBuf>, client: kube::Client, guest_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            node_name: "osb".to_owned(),
            client,
            guest_dir: guest_dir.into(),
            stand_ins: BTreeMap::new(),
            host_paths: Vec::new(),
            pod_cidr: None,
            max_pods: 1000,
            pids_limit: 1024,
            log_max_bytes: 10 * 1024 * 1024,
            log_max_files: 3,
            allow_privileged: false,
            concurrency: None,
        }
    }
}

/// Why there is no node.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The machine lacks something.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The network could not be made.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The image store could not be opened.
    #[error(transparent)]
    Images(#[from] ImageError),
    /// The API did not take the node.
    #[error("the node could not be registered: {0}")]
    Register(#[source] Box<kube::Error>),
    /// The disk refused.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// Why not.
        source: std::io::Error,
    },
}

/// A running node. Dropping it stops the node and leaves its pods running.
pub struct Node {
    streams: Streams,
    images: ImageStore,
    network: Network,
    tasks: Vec<JoinHandle<()>>,
}

impl Node {
    /// Starts the node: checks the machine, re-attaches to what runs, registers, and begins to look after pods.
    pub async fn start(config: NodeConfig) -> Result<Self, NodeError> {
        let state_dir = config.state_dir.clone();
        let groups = tokio::task::spawn_blocking(move || requirements::check(&state_dir))
            .await
            .map_err(|error| NodeError::Io { what: "check".to_owned(), source: std::io::Error::other(error) })??;
        let pods_dir = config.state_dir.join("pods");
        std::fs::create_dir_all(&pods_dir)
            .map_err(|source| NodeError::Io { what: format!("cannot make {}", pods_dir.display()), source })?;
        let mut network = NetworkConfig::new(config.state_dir.join("network"));
        network.cidr = config.pod_cidr;
        let network = Network::setup(network).await?;
        let mut images = ImageConfig::new(config.state_dir.join("images"), config.guest_dir.clone());
        images.stand_ins.clone_from(&config.stand_ins);
        let images = ImageStore::open(images)?;
        let mut volumes = VolumeConfig::new(pods_dir.clone());
        volumes.host_paths.clone_from(&config.host_paths);
        let capacity = Capacity::of_machine(&config.state_dir, config.max_pods);
        let host_ip = network.gateway().to_string();
        registration::register(&config.client, &config.node_name, &host_ip, &capacity)
            .await
            .map_err(|error| NodeError::Register(Box::new(error)))?;
        let processors = usize::try_from(capacity.cpu_milli / 1000).unwrap_or(1).max(1);
        let context = Arc::new(Context {
            client: config.client.clone(),
            recorder: Recorder::start(config.client.clone(), "kubelet", config.node_name.clone()),
            images: images.clone(),
            network: network.clone(),
            volumes: Volumes::new(volumes),
            groups,
            permits: Arc::new(Semaphore::new(config.concurrency.unwrap_or(2 * processors).max(1))),
            facts: NodeFacts {
                node_name: config.node_name.clone(),
                host_ip,
                pod_ip: String::new(),
                cpu_milli: capacity.cpu_milli,
                memory: capacity.memory,
                ephemeral_storage: capacity.disk,
            },
            resolv_conf: std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
            pods_dir,
            pids_limit: config.pids_limit,
            log_max_bytes: config.log_max_bytes,
            log_max_files: config.log_max_files,
            allow_privileged: config.allow_privileged,
        });
        let streams = Streams::default();
        let heartbeat = tokio::spawn(registration::heartbeat(config.client.clone(), config.node_name.clone()));
        let manager = Manager {
            recorder: Recorder::start(config.client.clone(), "default-scheduler", config.node_name.clone()),
            labels: registration::labels(&config.node_name),
            config,
            context,
            streams: streams.clone(),
            pods: HashMap::new(),
            unplaced: HashMap::new(),
        };
        let work = tokio::spawn(manager.run());
        Ok(Self { streams, images, network, tasks: vec![heartbeat, work] })
    }

    /// Logs, commands and ports of the pods here.
    pub fn streams(&self) -> Arc<dyn PodStreams> {
        Arc::new(self.streams.clone())
    }

    /// The image store.
    pub fn images(&self) -> ImageStore {
        self.images.clone()
    }

    /// The machine's address as pods see it.
    pub fn gateway(&self) -> Ipv4Addr {
        self.network.gateway()
    }

    /// Stops looking after the pods, which run on.
    pub async fn stop(mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
            let _ = task.await;
        }
    }

    /// Ends everything that a node made below this directory: shims, containers, control groups, network, files of
    /// pods. The image store stays. Doing it again is no error, and it needs no living node.
    pub async fn purge(state_dir: &Path) -> Result<(), NodeError> {
        let pods_dir = state_dir.join("pods");
        let uids = pod_dirs(&pods_dir);
        futures::stream::iter(&uids)
            .for_each_concurrent(8, |uid| {
                let shim = Shim::at(&pods_dir.join(uid));
                async move {
                    let _ = shim.order(&Request::Shutdown).await;
                }
            })
            .await;
        let dir = pods_dir.clone();
        let swept = tokio::task::spawn_blocking(move || sweep(&dir, &uids)).await;
        swept
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
            .map_err(|source| NodeError::Io { what: "cannot remove what pods left".to_owned(), source })?;
        network::purge(&state_dir.join("network")).await?;
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn pod_dirs(pods_dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(pods_dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn sweep(pods_dir: &Path, uids: &[String]) -> std::io::Result<()> {
    let groups = Hierarchies::detect()?;
    for uid in uids {
        let group = format!("{}/{uid}", cgroup::ROOT);
        groups.kill(&group, Duration::from_secs(5));
        groups.remove(&group);
    }
    // A shim that would not listen is found by its directory; shims of other state directories are not ours.
    end_shims(&groups, pods_dir);
    if groups.members(cgroup::SHIMS).is_empty() {
        groups.remove(cgroup::SHIMS);
        groups.remove_if_empty(cgroup::ROOT);
    }
    let volumes = Volumes::new(VolumeConfig::new(pods_dir.to_owned()));
    volumes.purge()?;
    match std::fs::remove_dir_all(pods_dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn end_shims(groups: &Hierarchies, pods_dir: &Path) {
    let mine: Vec<_> = groups
        .members(cgroup::SHIMS)
        .into_iter()
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let dir = line.split(|byte| *byte == 0).nth(2).map(String::from_utf8_lossy);
            dir.is_some_and(|dir| Path::new(dir.as_ref()).starts_with(pods_dir))
        })
        .filter_map(|pid| crate::sys::pidfd_open(pid).ok())
        .collect();
    for shim in &mine {
        let _ = crate::sys::pidfd_kill(shim, nix::sys::signal::Signal::SIGKILL);
    }
    for shim in &mine {
        cgroup::wait_readable(shim, Duration::from_secs(5));
    }
}

/// The names of the objects that come or change, without those that were there before.
fn changed<K>(
    events: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
    kind: ObjectKind,
) -> impl Stream<Item = (ObjectKind, String, String)>
where
    K: kube::Resource,
{
    events.filter_map(move |event| {
        let named = match event {
            Ok(watcher::Event::Apply(object)) => {
                let metadata = object.meta();
                metadata.namespace.clone().zip(metadata.name.clone()).map(|(namespace, name)| (kind, namespace, name))
            }
            _ => None,
        };
        std::future::ready(named)
    })
}

/// Follows the pods of the API and keeps a worker for each that is here.
struct Manager {
    config: NodeConfig,
    context: Arc<Context>,
    recorder: Recorder,
    labels: BTreeMap<String, String>,
    streams: Streams,
    pods: HashMap<String, Handle>,
    /// Pods that cannot be placed, and why it was last said.
    unplaced: HashMap<String, (Arc<Pod>, String)>,
}

impl Manager {
    async fn run(mut self) {
        let pods: Api<Pod> = Api::all(self.config.client.clone());
        let stream = watcher(pods, watcher::Config::default()).default_backoff();
        let mut stream = std::pin::pin!(stream);
        let maps: Api<ConfigMap> = Api::all(self.config.client.clone());
        let maps = changed(watcher(maps, watcher::Config::default()).default_backoff(), ObjectKind::ConfigMap);
        let secrets: Api<Secret> = Api::all(self.config.client.clone());
        let secrets = changed(watcher(secrets, watcher::Config::default()).default_backoff(), ObjectKind::Secret);
        let mut objects = std::pin::pin!(futures::stream::select(maps, secrets));
        let mut listed: Option<BTreeSet<String>> = None;
        let mut swept = false;
        let mut cleaning = tokio::time::interval(Duration::from_secs(30));
        loop {
            tokio::select! {
                event = stream.next() => match event {
                    Some(Ok(watcher::Event::Init)) => listed = Some(BTreeSet::new()),
                    Some(Ok(watcher::Event::InitApply(pod))) => {
                        if let (Some(listed), Some(uid)) = (&mut listed, &pod.metadata.uid) {
                            listed.insert(uid.clone());
                        }
                        self.apply(pod).await;
                    }
                    Some(Ok(watcher::Event::InitDone)) => {
                        let live = listed.take().unwrap_or_default();
                        self.forget_except(&live);
                        if !std::mem::replace(&mut swept, true) {
                            self.sweep_leftovers(live);
                        }
                    }
                    Some(Ok(watcher::Event::Apply(pod))) => self.apply(pod).await,
                    Some(Ok(watcher::Event::Delete(pod))) => {
                        if let Some(uid) = &pod.metadata.uid {
                            self.gone(uid);
                            self.place_waiting().await;
                        }
                    }
                    Some(Err(error)) => tracing::warn!(%error, "pods cannot be watched"),
                    None => return,
                },
                Some((kind, namespace, name)) = objects.next() => {
                    for handle in self.pods.values().filter(|handle| handle.refers_to(&namespace, kind, &name)) {
                        handle.refresh();
                    }
                }
                _ = cleaning.tick() => self.clean(),
            }
        }
    }

    async fn apply(&mut self, pod: Pod) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        let pod = Arc::new(pod);
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
        if node.is_empty() {
            if pod.metadata.deletion_timestamp.is_none() {
                self.place(&uid, pod).await;
            }
            return;
        }
        if node != self.config.node_name {
            return;
        }
        self.unplaced.remove(&uid);
        match self.pods.get(&uid) {
            Some(handle) => handle.update(Some(pod)),
            None => {
                let finished = pod.status.as_ref().and_then(|status| status.phase.as_deref());
                // What has finished and has left nothing here needs nobody.
                if matches!(finished, Some("Succeeded" | "Failed"))
                    && pod.metadata.deletion_timestamp.is_none()
                    && !self.context.pod_dir(&uid).exists()
                {
                    return;
                }
                let handle = Handle::start(Arc::clone(&self.context), pod);
                self.streams.add(&uid, Arc::clone(&handle.shared));
                self.pods.insert(uid, handle);
            }
        }
    }

    /// Binds a pod to this node, or says why not.
    async fn place(&mut self, uid: &str, pod: Arc<Pod>) {
        let most = self.config.max_pods as usize;
        let name = pod.metadata.name.clone().unwrap_or_default();
        let namespace = pod.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let api: Api<Pod> = Api::namespaced(self.config.client.clone(), &namespace);
        let room = Room { labels: &self.labels, pods: self.pods.len(), most, facts: &self.context.facts };
        if let Some(refusal) = schedule::refusal(&pod, &room) {
            let told = self.unplaced.get(uid).is_some_and(|(_, before)| *before == refusal.message);
            if !told {
                let mut condition = serde_json::json!({"type": "PodScheduled", "status": "False",
                    "reason": refusal.reason, "message": refusal.message,
                    "lastTransitionTime": jiff::Timestamp::now()});
                if refusal.reason == schedule::UNSCHEDULABLE {
                    let message = refusal.message.clone();
                    self.recorder.record(&pod, None, Kind::Warning, "FailedScheduling", message);
                    condition["observedGeneration"] = pod.metadata.generation.into();
                }
                let patch = serde_json::json!({"status": {"conditions": [condition]}});
                let _ = api.patch_status(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
            }
            self.unplaced.insert(uid.to_owned(), (pod, refusal.message));
            return;
        }
        let binding = Binding {
            metadata: ObjectMeta { name: Some(name.clone()), uid: Some(uid.to_owned()), ..ObjectMeta::default() },
            target: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Node".to_owned()),
                name: Some(self.config.node_name.clone()),
                ..ObjectReference::default()
            },
        };
        match api
            .create_subresource::<Binding, serde_json::Value>("binding", &name, &PostParams::default(), &binding)
            .await
        {
            Ok(_) => {
                let message = format!("Successfully assigned {namespace}/{name} to {}", self.config.node_name);
                self.recorder.record(&pod, None, Kind::Normal, "Scheduled", message);
            }
            // Bound or deleted meanwhile: the watch tells.
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
            Err(error) => {
                tracing::warn!(pod = name, %error, "pod not bound");
                self.unplaced.insert(uid.to_owned(), (pod, String::new()));
            }
        }
    }

    async fn place_waiting(&mut self) {
        let most = self.config.max_pods as usize;
        if self.unplaced.is_empty() || self.pods.len() >= most {
            return;
        }
        let waiting: Vec<(String, Arc<Pod>)> =
            self.unplaced.iter().map(|(uid, (pod, _))| (uid.clone(), Arc::clone(pod))).collect();
        for (uid, pod) in waiting {
            self.place(&uid, pod).await;
        }
    }

    fn gone(&mut self, uid: &str) {
        self.unplaced.remove(uid);
        if let Some(handle) = self.pods.get(uid) {
            handle.update(None);
        }
        self.clean();
    }

    /// Lets workers go whose pods are gone.
    fn clean(&mut self) {
        let finished: Vec<String> =
            self.pods.iter().filter(|(_, handle)| handle.finished()).map(|(uid, _)| uid.clone()).collect();
        for uid in finished {
            self.pods.remove(&uid);
            self.streams.remove(&uid);
        }
    }

    fn forget_except(&mut self, live: &BTreeSet<String>) {
        let gone: Vec<String> = self.pods.keys().filter(|uid| !live.contains(*uid)).cloned().collect();
        for uid in gone {
            self.gone(&uid);
        }
        self.unplaced.retain(|uid, _| live.contains(uid));
    }

    /// Ends pods whose objects went away while no node was looking.
    fn sweep_leftovers(&self, live: BTreeSet<String>) {
        let context = Arc::clone(&self.context);
        tokio::spawn(async move {
            for uid in pod_dirs(&context.pods_dir) {
                if !live.contains(&uid) {
                    let _permit = context.permits.acquire().await;
                    stop::everything(&context, &uid).await;
                }
            }
        });
    }
}
