//! One simulated node: starts pods after a while, lets them go after a while, loses them when told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt as _};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::surroundings::{SimClock, chance};

/// Name of the node.
pub const NODE: &str = "node-1";

/// What the node knows.
pub struct Node {
    client: Client,
    clock: Arc<SimClock>,
    seed: u64,
    state: Mutex<State>,
    healed: Notify,
}

#[derive(Default)]
struct State {
    pods: BTreeMap<String, Running>,
    /// Addresses in use; a freed one is the next to be given, as clusters do sooner or later.
    addresses: BTreeSet<u8>,
    barren: u8,
    /// Pods that were not started, for the day the node can again.
    unborn: Vec<Pod>,
    lost_until: Option<Instant>,
}

/// A pod that has started.
#[derive(Debug, Clone)]
pub struct Running {
    /// Its name.
    pub name: String,
    /// Its address.
    pub ip: String,
    address: u8,
    /// Restarts of its containers.
    pub restarts: i32,
    over: bool,
}

impl Node {
    /// A node that sees the API through `client`.
    pub fn new(client: Client, clock: Arc<SimClock>, seed: u64) -> Arc<Self> {
        Arc::new(Self { client, clock, seed, state: Mutex::default(), healed: Notify::new() })
    }

    /// Follows the pods.
    pub async fn run(self: Arc<Self>) {
        let mut seen = BTreeSet::new();
        let mut events = std::pin::pin!(watcher(Api::<Pod>::all(self.client.clone()), watcher::Config::default()));
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::InitApply(pod) | Event::Apply(pod)) => {
                    let uid = pod.uid().unwrap_or_default();
                    let going = pod.metadata.deletion_timestamp.is_some();
                    if seen.insert((uid, going)) {
                        let node = self.clone();
                        tokio::spawn(async move { if going { node.stop(pod).await } else { node.start(pod).await } });
                    }
                }
                Ok(Event::Delete(pod)) => self.forget(&pod.uid().unwrap_or_default()),
                _ => {}
            }
        }
    }

    fn api(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default())
    }

    async fn start(&self, pod: Pod) {
        let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
        let wait = chance(self.seed, &format!("start {name}")).u64(20..3_000);
        tokio::time::sleep(Duration::from_millis(wait)).await;
        self.reached().await;
        let running = {
            let mut state = self.state.lock();
            if state.barren > 0 {
                state.barren -= 1;
                state.unborn.push(pod);
                return;
            }
            let address = (1..=u8::MAX).find(|a| !state.addresses.contains(a)).unwrap_or(u8::MAX);
            state.addresses.insert(address);
            let running =
                Running { name: name.clone(), ip: format!("10.0.0.{address}"), address, restarts: 0, over: false };
            state.pods.insert(uid.clone(), running.clone());
            running
        };
        self.report(&self.api(&pod), &uid, &running, true).await;
    }

    async fn stop(&self, pod: Pod) {
        let name = pod.name_any();
        let wait = chance(self.seed, &format!("stop {name}")).u64(10..4_000);
        tokio::time::sleep(Duration::from_millis(wait)).await;
        self.reached().await;
        let uid = pod.uid().unwrap_or_default();
        let now = DeleteParams {
            preconditions: Some(kube::api::Preconditions { uid: Some(uid.clone()), resource_version: None }),
            ..DeleteParams::default().grace_period(0)
        };
        let _ = self.api(&pod).delete(&name, &now).await;
        self.forget(&uid);
    }

    fn forget(&self, uid: &str) {
        let mut state = self.state.lock();
        if let Some(running) = state.pods.remove(uid) {
            state.addresses.remove(&running.address);
        }
    }

    async fn report(&self, api: &Api<Pod>, uid: &str, running: &Running, ready: bool) {
        let phase = if running.over { "Failed" } else { "Running" };
        let ready = if ready && !running.over { "True" } else { "False" };
        let now = local_api::env::rfc3339(self.clock.wall());
        let last =
            if running.restarts > 0 { json!({"terminated": {"exitCode": 1, "reason": "Error"}}) } else { json!({}) };
        let state = if running.over {
            json!({"terminated": {"exitCode": 1, "reason": "Error"}})
        } else {
            json!({"running": {"startedAt": now}})
        };
        let patch = json!({"metadata": {"uid": uid}, "status": {
            "phase": phase, "podIP": running.ip,
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": now}],
            "containerStatuses": [{"name": "sandbox", "image": "i", "imageID": "", "ready": ready == "True",
                "restartCount": running.restarts, "lastState": last, "state": state}],
        }});
        let _ = api.patch_status(&running.name, &PatchParams::default(), &Patch::Merge(&patch)).await;
    }

    /// Waits while the node is lost.
    async fn reached(&self) {
        loop {
            let until = self.state.lock().lost_until.filter(|until| *until > Instant::now());
            let Some(until) = until else { return };
            tokio::select! {
                biased;
                () = self.healed.notified() => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// Whether the node does not answer now.
    pub fn is_lost(&self) -> bool {
        self.state.lock().lost_until.is_some_and(|until| until > Instant::now())
    }

    /// The pod that has an address now.
    pub fn at(&self, ip: &str) -> Option<(String, Running)> {
        let state = self.state.lock();
        let found = state.pods.iter().find(|(_, running)| running.ip == ip && !running.over);
        found.map(|(uid, running)| (uid.clone(), running.clone()))
    }

    /// UID of the n-th running pod, by name.
    pub fn nth(&self, nth: u8) -> Option<String> {
        let state = self.state.lock();
        let mut names: Vec<_> = state.pods.iter().map(|(uid, running)| (running.name.clone(), uid.clone())).collect();
        names.sort();
        let at = usize::from(nth).checked_rem(names.len())?;
        Some(names.swap_remove(at).1)
    }

    /// The next so many pods never start.
    pub fn barren(&self, pods: u8) {
        self.state.lock().barren = pods;
    }

    /// Loses the node, or finds it again.
    pub async fn lose(&self, time: Duration) {
        self.state.lock().lost_until = Some(Instant::now() + time);
        self.tell_all(false).await;
        tokio::time::sleep(time).await;
        self.tell_all(!self.is_lost()).await;
    }

    /// Nothing is wrong any more.
    pub async fn heal(self: &Arc<Self>) {
        let unborn = {
            let mut state = self.state.lock();
            state.barren = 0;
            state.lost_until = None;
            std::mem::take(&mut state.unborn)
        };
        self.healed.notify_waiters();
        self.tell_all(true).await;
        for pod in unborn {
            tokio::spawn({
                let node = self.clone();
                async move { node.start(pod).await }
            });
        }
    }

    async fn tell_all(&self, ready: bool) {
        let pods = self.state.lock().pods.clone();
        for (uid, running) in pods {
            self.report(&Api::namespaced(self.client.clone(), "default"), &uid, &running, ready).await;
        }
    }

    /// Ends a pod in failure.
    pub async fn fail(&self, uid: &str) {
        self.change(uid, |running| running.over = true).await;
    }

    /// Restarts a pod's containers.
    pub async fn restart(&self, uid: &str) {
        self.change(uid, |running| running.restarts += 1).await;
    }

    async fn change(&self, uid: &str, change: impl FnOnce(&mut Running)) {
        let changed = {
            let mut state = self.state.lock();
            let Some(running) = state.pods.get_mut(uid) else { return };
            change(running);
            running.clone()
        };
        let ready = !self.is_lost();
        self.report(&Api::namespaced(self.client.clone(), "default"), uid, &changed, ready).await;
    }
}
