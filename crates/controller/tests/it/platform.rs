//! One embedded API with a node, daemons and a controller.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api_types::crd::{self, BatchSandbox, Pool};
use api_types::names::finalizers;
use controller::{Config, Controller};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::{Client, ResourceExt as _};
use local_api::env::{Hook, NoHook, WriteInfo};
use local_api::{Api as LocalApi, Options};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::fake::{FakeDaemons, NODE, node};

/// What no test waits longer for.
const DEADLINE: Duration = Duration::from_secs(60);

/// Wall time that goes as tokio's does, so that a paused test's timers and its clock agree.
pub struct Steady {
    begin: tokio::time::Instant,
    base: jiff::Timestamp,
}

impl Steady {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { begin: tokio::time::Instant::now(), base: jiff::Timestamp::now() })
    }
}

impl controller::Clock for Steady {
    fn now(&self) -> jiff::Timestamp {
        self.base + jiff::SignedDuration::try_from(self.begin.elapsed()).unwrap()
    }
}

/// Counts writes, and wakes whoever waits for one.
struct Counter {
    writes: Mutex<BTreeMap<(String, String), usize>>,
    written: watch::Sender<u64>,
    /// What a test does to writes.
    before: Arc<dyn Hook>,
}

#[async_trait::async_trait]
impl Hook for Counter {
    async fn before_write(&self, write: &WriteInfo) -> local_api::error::Result<()> {
        self.before.before_write(write).await
    }

    async fn after_write(&self, write: &WriteInfo) -> local_api::error::Result<()> {
        *self.writes.lock().entry((write.plural.clone(), write.name.clone())).or_default() += 1;
        self.written.send_modify(|n| *n += 1);
        Ok(())
    }
}

/// The platform.
pub struct Platform {
    api: LocalApi,
    pub client: Client,
    pub daemons: Arc<FakeDaemons>,
    counter: Arc<Counter>,
    controller: Option<Running>,
    node: tokio::task::JoinHandle<()>,
}

/// A controller on a runtime of its own, so that it can be killed at any moment.
struct Running {
    runtime: tokio::runtime::Runtime,
    shutdown: CancellationToken,
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.kill_controller();
        self.node.abort();
    }
}

impl Platform {
    /// Everything runs.
    pub async fn start() -> Self {
        Self::start_with(Arc::new(NoHook)).await
    }

    /// Everything runs, and something is done to writes.
    pub async fn start_with(before: Arc<dyn Hook>) -> Self {
        let mut platform = Self::bare_with(before).await;
        platform.start_controller();
        platform
    }

    /// Everything but a controller.
    pub async fn bare() -> Self {
        Self::bare_with(Arc::new(NoHook)).await
    }

    /// Everything but a controller, and something is done to writes.
    pub async fn bare_with(before: Arc<dyn Hook>) -> Self {
        let counter = Arc::new(Counter { writes: Mutex::default(), written: watch::Sender::new(0), before });
        let api = LocalApi::in_memory_with(Options { hook: counter.clone(), ..Options::default() });
        let client = api.client("default");
        for definition in crd::all() {
            let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
            crds.create(&PostParams::default(), &definition).await.unwrap();
        }
        let namespaces: Api<Namespace> = Api::all(client.clone());
        if namespaces.get_opt("default").await.unwrap().is_none() {
            let default = serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap();
            namespaces.create(&PostParams::default(), &default).await.unwrap();
        }
        let node = tokio::spawn(node(client.clone()));
        Self { api, client, daemons: FakeDaemons::new(), counter, controller: None, node }
    }

    /// A client like those of other programs.
    pub fn another_client(&self) -> Client {
        self.api.client("default")
    }

    /// Starts a controller that knows nothing yet.
    pub fn start_controller(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let shutdown = CancellationToken::new();
        let (client, daemons, stop) = (self.api.client("default"), self.daemons.clone(), shutdown.clone());
        runtime.spawn(async move {
            Controller::new(client, Config::new([1; 32], [2; 32])).with_daemons(daemons).run(stop).await
        });
        self.controller = Some(Running { runtime, shutdown });
    }

    /// Ends the controller between two instructions, as SIGKILL would.
    pub fn kill_controller(&mut self) {
        if let Some(Running { runtime, shutdown }) = self.controller.take() {
            runtime.shutdown_background();
            drop(shutdown);
        }
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    pub fn pools(&self) -> Api<Pool> {
        Api::namespaced(self.client.clone(), "default")
    }

    pub fn batches(&self) -> Api<BatchSandbox> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Waits until `look` finds something; looks after every write.
    pub async fn until<T, F>(&self, what: &str, mut look: impl FnMut() -> F) -> T
    where
        F: Future<Output = Option<T>>,
    {
        let mut written = self.counter.written.subscribe();
        let search = async {
            loop {
                written.mark_unchanged();
                if let Some(found) = look().await {
                    return found;
                }
                written.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(DEADLINE, search).await {
            Ok(found) => found,
            Err(_) => panic!("never: {what}\n{}", self.describe().await),
        }
    }

    /// Everything there is, for the message of a test that failed.
    async fn describe(&self) -> String {
        let mut text = String::new();
        for batch in self.batches().list(&ListParams::default()).await.unwrap() {
            text.push_str(&format!("{} {}\n", batch.name_any(), json!(batch.status)));
        }
        for pool in self.pools().list(&ListParams::default()).await.unwrap() {
            text.push_str(&format!("{} {}\n", pool.name_any(), json!(pool.status)));
        }
        text.push_str(&format!("{} pods", self.all_pods().await.len()));
        text
    }

    pub async fn all_pods(&self) -> Vec<Pod> {
        self.pods().list(&ListParams::default()).await.unwrap().items
    }

    /// Creates a pool with execd in its pods; `capacity` is bufferMin, bufferMax, poolMin, poolMax.
    pub async fn pool(&self, name: &str, capacity: [i32; 4]) {
        let container = json!({"name": "sandbox", "image": "i", "ports": [{"containerPort": 44772}]});
        self.pool_of(name, capacity, json!([container])).await;
    }

    pub async fn pool_of(&self, name: &str, [bmin, bmax, pmin, pmax]: [i32; 4], containers: serde_json::Value) {
        let pool = json!({
            "apiVersion": "sandbox.opensandbox.io/v1alpha1", "kind": "Pool", "metadata": {"name": name},
            "spec": {
                "template": {"spec": {"nodeName": NODE, "containers": containers}},
                "scaleStrategy": {"maxUnavailable": "100%"},
                "capacitySpec": {"bufferMin": bmin, "bufferMax": bmax, "poolMin": pmin, "poolMax": pmax}}});
        let pool = serde_json::from_value(pool).unwrap();
        self.pools().create(&PostParams::default(), &pool).await.unwrap();
    }

    /// Waits until so many pods of a pool are available.
    pub async fn available(&self, pool: &str, n: i32) {
        let what = format!("{n} pods of {pool} available");
        let look = || async {
            let status = self.pools().get(pool).await.unwrap().status.unwrap_or_default();
            (status.available == n).then_some(())
        };
        self.until(&what, look).await;
    }

    /// Creates a BatchSandbox as the server does: with its finalizer.
    pub async fn create(&self, name: &str, spec: serde_json::Value) -> BatchSandbox {
        let pooled = spec.get("poolRef").is_some();
        let finalizers = if pooled { json!([finalizers::POOL_ALLOCATION]) } else { json!([]) };
        let batch = json!({
            "apiVersion": "sandbox.opensandbox.io/v1alpha1", "kind": "BatchSandbox",
            "metadata": {"name": name, "finalizers": finalizers}, "spec": spec});
        let batch = serde_json::from_value(batch).unwrap();
        self.batches().create(&PostParams::default(), &batch).await.unwrap()
    }

    /// Waits until a BatchSandbox is as `look` wants it.
    pub async fn batch(&self, name: &str, what: &str, look: impl Fn(&BatchSandbox) -> bool) -> BatchSandbox {
        let what = format!("{name}: {what}");
        self.until(&what, || async { self.batches().get(name).await.ok().filter(|b| look(b)) }).await
    }

    /// Waits until a BatchSandbox has so many ready pods.
    pub async fn ready(&self, name: &str, n: i32) -> BatchSandbox {
        self.batch(name, &format!("{n} ready"), |b| b.status.as_ref().is_some_and(|s| s.ready == n)).await
    }

    /// Deletes a BatchSandbox and waits until it is gone.
    pub async fn delete(&self, name: &str) {
        self.batches().delete(name, &DeleteParams::default()).await.unwrap();
        self.gone(name).await;
    }

    pub async fn gone(&self, name: &str) {
        let look = || async { self.batches().get_opt(name).await.unwrap().is_none().then_some(()) };
        self.until(&format!("{name} is gone"), look).await;
    }

    /// Waits until an object was written so often; a write is counted a little after it is seen.
    pub async fn written(&self, plural: &str, name: &str, n: usize) {
        let what = format!("{n} writes on {name}");
        self.until(&what, || async { (self.writes(plural, name) >= n).then_some(()) }).await;
    }

    /// Writes on an object so far, its create apart: that one names nobody.
    pub fn writes(&self, plural: &str, name: &str) -> usize {
        self.counter.writes.lock().get(&(plural.to_owned(), name.to_owned())).copied().unwrap_or(0)
    }
}
