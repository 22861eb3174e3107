//! What users do, said to the API as kubectl and the lifecycle server would.

use std::collections::BTreeSet;

use api_types::crd::{BatchSandbox, Pool};
use api_types::names::events::TERMINATED;
use api_types::names::{annotations, finalizers, labels};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::daemons::FAILING;
use crate::node::NODE;
use crate::story::{Act, BatchNumber, Capacity, Daemon, PoolNumber, Work};
use crate::surroundings::SimClock;

/// A user who may do everything.
pub struct User {
    client: Client,
}

impl User {
    /// A user of this client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    fn pools(&self) -> Api<Pool> {
        Api::namespaced(self.client.clone(), "default")
    }

    fn batches(&self) -> Api<BatchSandbox> {
        Api::namespaced(self.client.clone(), "default")
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Does it. Whether it could be done is the API's business: what is not there cannot be changed.
    pub async fn act(&self, act: &Act, clock: &SimClock) {
        let _ = self.try_act(act, clock).await;
    }

    async fn try_act(&self, act: &Act, clock: &SimClock) -> kube::Result<()> {
        let merge = PatchParams::default();
        match *act {
            Act::CreatePool { pool, capacity, daemon } => {
                self.pools().create(&PostParams::default(), &object(pool_manifest(pool, capacity, daemon))?).await?;
            }
            Act::Resize { pool, capacity } => {
                let patch = json!({"spec": {"capacitySpec": capacity_spec(capacity)}});
                self.pools().patch(&pool_name(pool), &merge, &Patch::Merge(&patch)).await?;
            }
            Act::Pace { pool, at_once } => {
                let most = [json!(null), json!(1), json!("50%"), json!("100%")][usize::from(at_once % 4)].clone();
                let patch = json!({"spec": {"updateStrategy": {"maxUnavailable": most}}});
                self.pools().patch(&pool_name(pool), &merge, &Patch::Merge(&patch)).await?;
            }
            Act::EditTemplate { pool, image } => {
                let patch = json!({"spec": {"template": {"metadata": {"labels": {"image": image.to_string()}}}}});
                self.pools().patch(&pool_name(pool), &merge, &Patch::Merge(&patch)).await?;
            }
            Act::DeletePool { pool } => {
                self.pools().delete(&pool_name(pool), &DeleteParams::background()).await?;
            }
            Act::CreateBatch { batch, pool, replicas, expires, work } => {
                let mut manifest = batch_manifest(batch, pool, replicas, work);
                if let Some(seconds) = expires {
                    manifest["spec"]["expireTime"] = expiry(clock, seconds);
                }
                self.batches().create(&PostParams::default(), &object(manifest)?).await?;
            }
            Act::Scale { batch, replicas } => {
                let patch = json!({"spec": {"replicas": replicas}});
                self.batches().patch(&batch_name(batch), &merge, &Patch::Merge(&patch)).await?;
            }
            Act::Expire { batch, seconds } => {
                let patch = json!({"spec": {"expireTime": expiry(clock, seconds)}});
                self.batches().patch(&batch_name(batch), &merge, &Patch::Merge(&patch)).await?;
            }
            Act::Release { batch } => {
                let found = self.batches().get(&batch_name(batch)).await?;
                let held = found.status.iter().flat_map(|s| &s.grants).find(|g| g.state.holds());
                if let Some(grant) = held {
                    let names = json!({"pods": [grant.pod]}).to_string();
                    let patch = json!({"metadata": {"annotations": {annotations::ALLOC_RELEASE: names}}});
                    self.batches().patch(&batch_name(batch), &merge, &Patch::Merge(&patch)).await?;
                }
            }
            Act::DeleteBatch { batch } => {
                self.batches().delete(&batch_name(batch), &DeleteParams::background()).await?;
            }
            Act::DeletePod { nth } => {
                if let Some(name) = self.nth_pod(nth).await? {
                    self.pods().delete(&name, &DeleteParams::default()).await?;
                }
            }
            Act::EvictPod { nth } => {
                if let Some(name) = self.nth_pod(nth).await? {
                    let patch = json!({"metadata": {"labels": {labels::EVICT: "true"}}});
                    self.pods().patch(&name, &merge, &Patch::Merge(&patch)).await?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// UIDs of the BatchSandboxes of which an Event says how they ended.
    pub async fn remembered(&self) -> kube::Result<BTreeSet<String>> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), "default");
        let last = events.list(&ListParams::default()).await?.items.into_iter();
        let last = last.filter(|event| event.action.as_deref() == Some(TERMINATED));
        Ok(last.filter_map(|event| event.involved_object.uid).collect())
    }

    async fn nth_pod(&self, nth: u8) -> kube::Result<Option<String>> {
        let pods = self.pods().list(&ListParams::default()).await?;
        let mut names: Vec<_> = pods.iter().map(ResourceExt::name_any).collect();
        names.sort();
        Ok(usize::from(nth).checked_rem(names.len()).map(|at| names.swap_remove(at)))
    }
}

/// Name of a pool.
pub fn pool_name(pool: PoolNumber) -> String {
    format!("pool-{pool}")
}

/// Name of a BatchSandbox.
pub fn batch_name(batch: BatchNumber) -> String {
    format!("batch-{batch}")
}

fn object<K: serde::de::DeserializeOwned>(manifest: Value) -> kube::Result<K> {
    serde_json::from_value(manifest).map_err(kube::Error::SerdeError)
}

fn capacity_spec([buffer_min, buffer_max, pool_min, pool_max]: Capacity) -> Value {
    json!({"bufferMin": buffer_min, "bufferMax": buffer_max, "poolMin": pool_min, "poolMax": pool_max})
}

fn pod_template(daemon: Daemon) -> Value {
    let port = |port: u16| json!([{"containerPort": port}]);
    let containers = match daemon {
        Daemon::Execd => json!([{"name": "sandbox", "image": "i", "ports": port(44772)},
            {"name": "task-executor", "image": "i", "ports": port(5758)}]),
        Daemon::TaskExecutor => json!([{"name": "sandbox", "image": "i"},
            {"name": "task-executor", "image": "i", "ports": port(5758)}]),
        Daemon::None => json!([{"name": "sandbox", "image": "i"}]),
    };
    json!({"spec": {"nodeName": NODE, "containers": containers}})
}

fn pool_manifest(pool: PoolNumber, capacity: Capacity, daemon: Daemon) -> Value {
    json!({
        "apiVersion": "sandbox.opensandbox.io/v1alpha1", "kind": "Pool",
        "metadata": {"name": pool_name(pool), "namespace": "default"},
        "spec": {"template": pod_template(daemon), "capacitySpec": capacity_spec(capacity)},
    })
}

fn batch_manifest(batch: BatchNumber, pool: Option<PoolNumber>, replicas: i32, work: Work) -> Value {
    let mut spec = json!({"replicas": replicas});
    let mut held = Vec::new();
    match pool {
        Some(pool) => {
            spec["poolRef"] = json!(pool_name(pool));
            held.push(finalizers::POOL_ALLOCATION);
        }
        None => spec["template"] = pod_template(Daemon::Execd),
    }
    let process = json!({"spec": {"process": {"command": ["work"]}}});
    match work {
        Work::Idle => {}
        Work::Entrypoint => spec["claim"] = json!({"env": {"A": "1"}, "entrypoint": ["/bin/serve"]}),
        Work::Failing => spec["claim"] = json!({"entrypoint": [FAILING]}),
        Work::Tasks => spec["taskTemplate"] = process,
        Work::TasksThenRelease => {
            spec["taskTemplate"] = process;
            spec["taskResourcePolicyWhenCompleted"] = json!("Release");
        }
    }
    json!({
        "apiVersion": "sandbox.opensandbox.io/v1alpha1", "kind": "BatchSandbox",
        "metadata": {"name": batch_name(batch), "namespace": "default", "finalizers": held}, "spec": spec,
    })
}

fn expiry(clock: &SimClock, seconds: u32) -> Value {
    let at = clock.wall() + jiff::SignedDuration::from_secs(i64::from(seconds));
    json!(local_api::env::rfc3339(at))
}
