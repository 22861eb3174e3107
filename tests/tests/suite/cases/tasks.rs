//! Tasks by kubectl alone, in a pool without execd.

use anyhow::{Result, ensure};
use api_types::crd::{BatchSandbox, Pool};
use e2e::ground::Ground;
use e2e::watch::until;
use kube::Api;

use crate::pools;

const BATCH: &str = r#"
apiVersion: sandbox.opensandbox.io/v1alpha1
kind: BatchSandbox
metadata: {name: train}
spec:
  replicas: 6
  poolRef: plain
  taskResourcePolicyWhenCompleted: Release
  taskTemplate:
    spec:
      process:
        command: ["/bin/sh", "-c"]
        args: ["test \"$SHARD\" != bad"]
        env: [{name: SHARD, value: good}]
  shardTaskPatches:
    - {spec: {process: {env: [{name: SHARD, value: bad}]}}}
"#;

pub async fn tasks_are_counted_exactly_and_their_pods_come_back(ground: &Ground) -> Result<()> {
    pools::warm(ground, &pools::without_execd("plain", (6, 10), (6, 20))?, "plain", 6).await?;
    ground.kubectl_ok(&["apply", "-f", "-"], BATCH)?;
    let client = ground.client().await?;
    let batches: Api<BatchSandbox> = Api::namespaced(client.clone(), ground.namespace());
    let done =
        until(batches, "train", "done", |b| b.status.as_ref().is_some_and(|s| s.task_succeed + s.task_failed == 6))
            .await?;
    let status = done.status.unwrap_or_default();
    ensure!((status.task_succeed, status.task_failed) == (5, 1), "{status:?}");
    ensure!((status.task_running, status.task_pending, status.task_unknown) == (0, 0, 0), "{status:?}");
    let pools: Api<Pool> = Api::namespaced(client, ground.namespace());
    until(pools, "plain", "free again", |p| p.status.as_ref().is_some_and(|s| s.allocated == 0)).await?;
    ground.kubectl_ok(&["delete", "batchsandbox", "train", "--timeout=60s"], "")?;
    Ok(())
}
