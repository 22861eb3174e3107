//! Tasks by kubectl alone, in a pool without execd.

use anyhow::{Result, ensure};
use api_types::crd::{BatchSandbox, Pool};
use e2e::platform::{Platform, until};
use kube::Api;

use crate::{block_on, pools};

const BATCH: &str = r#"
apiVersion: sandbox.opensandbox.io/v1alpha1
kind: BatchSandbox
metadata: {name: train, namespace: default}
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

#[test]
fn tasks_are_counted_exactly_and_their_pods_come_back() -> Result<()> {
    need!("kubectl");
    let platform = Platform::start()?;
    block_on(async {
        pools::warm(&platform, &pools::without_execd("plain", (6, 10), (6, 20))?, "plain", 6).await?;
        platform.kubectl_ok(&["apply", "-f", "-"], BATCH)?;
        let client = platform.client().await?;
        let batches: Api<BatchSandbox> = Api::namespaced(client.clone(), "default");
        let done =
            until(batches, "train", "done", |b| b.status.as_ref().is_some_and(|s| s.task_succeed + s.task_failed == 6))
                .await?;
        let status = done.status.unwrap_or_default();
        ensure!((status.task_succeed, status.task_failed) == (5, 1), "{status:?}");
        ensure!((status.task_running, status.task_pending, status.task_unknown) == (0, 0, 0), "{status:?}");
        let pools: Api<Pool> = Api::namespaced(client, "default");
        until(pools, "plain", "free again", |p| p.status.as_ref().is_some_and(|s| s.allocated == 0)).await?;
        platform.kubectl_ok(&["delete", "batchsandbox", "train", "--timeout=60s"], "")?;
        Ok(())
    })
}
