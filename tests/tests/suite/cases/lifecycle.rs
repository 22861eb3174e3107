//! What is done to pools and sandboxes between their begin and their end.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api_types::crd::BatchSandbox;
use api_types::lifecycle::{CreatePoolRequest, PoolCapacity};
use e2e::ground::Ground;
use e2e::watch::{LIMIT, none_left, until};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher;
use kube::{Api, ResourceExt as _};
use opensandbox::Client;
use serde_json::{Value, json};

use crate::kit::try_create;
use crate::pools;

pub async fn a_pool_lives_and_ends_by_the_api_alone(ground: &Ground) -> Result<()> {
    let client = Client::new(ground.connection())?;
    let mut manifest: Value = serde_json::from_str(&pools::seed_like("made", (1, 2), (1, 4))?)?;
    let capacity = |most| PoolCapacity { buffer_min: 1, buffer_max: 2, pool_min: 1, pool_max: most };
    let template = manifest["spec"]["template"].take();
    let request = CreatePoolRequest { name: "made".to_owned(), template, capacity_spec: capacity(4) };
    client.pools().create(&request).await?;
    pools::available_in(ground, "made", 1).await?;

    let sandbox = try_create(ground, "made", "agent-1").await?;
    let before = sandbox.info().await?.expires_at.context("it has an end")?;
    let after = sandbox.renew(Duration::from_secs(3_600)).await?;
    ensure!(after > before, "renewed from {before} to {after}");
    let patch = BTreeMap::from([("stage".to_owned(), Some("late".to_owned()))]);
    let patched = sandbox.patch_metadata(&patch).await?;
    ensure!(
        patched.metadata.iter().flatten().any(|(k, v)| (k.as_str(), v.as_str()) == ("stage", "late")),
        "{patched:?}"
    );
    let logs = client.diagnostic_logs(sandbox.id(), "container").await?;
    ensure!(logs.sandbox_id == sandbox.id() && logs.kind == "logs", "{logs:?}");
    sandbox.kill().await?;

    let changed = client.pools().update("made", capacity(6)).await?;
    ensure!(changed.capacity_spec.pool_max == 6, "{changed:?}");
    client.pools().delete("made").await?;
    let gone = client.pools().get("made").await.err().context("a pool that was deleted is there")?;
    ensure!(gone.code().is_some(), "{gone:?}");
    let pods = Api::<Pod>::namespaced(ground.client().await?, ground.namespace());
    none_left(LIMIT, pods, watcher::Config::default().labels("pool=made"), "pods of the pool", |_| true).await
}

pub async fn a_sandbox_ends_at_its_time_and_leaves_nothing(ground: &Ground) -> Result<()> {
    pools::warm(ground, &pools::seed_like("short", (1, 2), (1, 4))?, "short", 1).await?;
    let end = Timestamp::now() + SignedDuration::from_secs(10);
    let batch = json!({
        "apiVersion": "sandbox.opensandbox.io/v1alpha1", "kind": "BatchSandbox", "metadata": {"name": "brief"},
        "spec": {"replicas": 1, "poolRef": "short", "expireTime": end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()},
    });
    ground.kubectl_ok(&["apply", "-f", "-"], &batch.to_string())?;
    let batches: Api<BatchSandbox> = Api::namespaced(ground.client().await?, ground.namespace());
    let held = until(batches.clone(), "brief", "ready", |b| b.status.as_ref().is_some_and(|s| s.ready == 1)).await?;
    let pods: Vec<_> = held.status.iter().flat_map(|s| &s.grants).map(|g| g.pod.clone()).collect();
    ensure!(pods.len() == 1, "one sandbox has {pods:?}");
    let only = watcher::Config::default().fields("metadata.name=brief");
    none_left(LIMIT, batches, only, "sandboxes past their time", |_| true).await?;
    ensure!(Timestamp::now().as_second() >= end.as_second(), "it ended before its time");
    let used = |pod: &Pod| pods.contains(&pod.name_any());
    let all = Api::<Pod>::namespaced(ground.client().await?, ground.namespace());
    none_left(LIMIT, all, watcher::Config::default().labels("pool=short"), "used pods", used).await
}
