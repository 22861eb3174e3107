//! Limits hold, and are told as such.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api_types::crd::{BatchPhase, BatchSandbox};
use e2e::ground::Ground;
use e2e::watch::until;
use kube::Api;

use crate::kit::{create, output};
use crate::pools;

pub async fn a_sandbox_that_eats_its_memory_is_oom_killed_and_says_so(ground: &Ground) -> Result<()> {
    pools::warm(ground, &pools::seed_like("bounded", (2, 4), (2, 8))?, "bounded", 2).await?;
    let sandbox = create(ground, "bounded").await?;
    // With cgroup v1 a kubelet's container loses the process that ate, and lives on: `memory.oom.group` is of v2.
    let whole = ground.cluster().is_none()
        || sandbox.commands().run("test -e /sys/fs/cgroup/cgroup.controllers").await?.exit_code == Some(0);
    // 256 MiB is the limit. `tail` keeps a line until it ends, and /dev/zero has no line end.
    let eaten = tokio::time::timeout(Duration::from_secs(60), sandbox.commands().run("tail /dev/zero")).await;
    if !whole {
        let eaten = eaten.context("the command that eats hangs")??;
        let told =
            eaten.error.as_ref().is_some_and(|e| e.traceback.iter().any(|line| line.starts_with("out of memory")));
        ensure!(told && eaten.exit_code != Some(0), "a command killed by the kernel says {eaten:?}");
        ensure!(output(&sandbox, "echo well").await? == "well", "the sandbox is gone with one of its processes");
        return Ok(());
    }
    let batches: Api<BatchSandbox> = Api::namespaced(ground.client().await?, ground.namespace());
    let failed = until(batches, sandbox.id(), "failed", |b| {
        b.status.as_ref().is_some_and(|s| s.phase == Some(BatchPhase::Failed))
    })
    .await?;
    let reasons: Vec<_> = failed.status.into_iter().flat_map(|s| s.conditions).filter_map(|c| c.reason).collect();
    ensure!(reasons.iter().any(|r| r == "OOMKilled"), "reasons: {reasons:?}");
    let told = sandbox.info().await?.status;
    ensure!(told.state == "Failed" && told.reason.as_deref() == Some("OOMKilled"), "{told:?}");
    let described = ground.kubectl_ok(&["describe", "batchsandbox", sandbox.id()], "")?;
    ensure!(described.contains("OOMKilled"), "{described}");
    Ok(())
}

pub async fn a_sandbox_that_forks_without_end_stops_at_its_limit(ground: &Ground) -> Result<()> {
    pools::warm(ground, &pools::seed_like("bounded", (2, 4), (2, 8))?, "bounded", 2).await?;
    let (bomb, neighbour) = (create(ground, "bounded").await?, create(ground, "bounded").await?);
    let forks = "for i in $(seq 1 20000); do sleep 120 & done; true";
    let run = tokio::time::timeout(Duration::from_secs(120), bomb.commands().run(forks)).await;
    if let Some(count) = ground.processes() {
        let count = count?;
        ensure!(count < 15_000, "{count} processes run on the machine; the sandbox's limit did not hold: {run:?}");
    }
    let well = output(&neighbour, "echo well").await.context("the neighbour suffers")?;
    ensure!(well == "well", "{well:?}");
    Ok(())
}
