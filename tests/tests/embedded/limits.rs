//! Limits hold, and are told as such.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use api_types::crd::{BatchPhase, BatchSandbox};
use e2e::platform::{Platform, until};
use kube::Api;
use opensandbox::Sandbox;

use crate::{block_on, pools};

async fn create(platform: &Platform) -> Result<Sandbox> {
    Ok(Sandbox::builder("nginx:latest")
        .pool("bounded")
        .timeout(Duration::from_secs(600))
        .connection(platform.connection())
        .create()
        .await?)
}

#[test]
fn a_sandbox_that_eats_its_memory_is_oom_killed_and_says_so() -> Result<()> {
    need!("kubectl");
    let platform = Platform::start()?;
    block_on(async {
        pools::warm(&platform, &pools::seed_like("bounded", (2, 4), (2, 8))?, "bounded", 2).await?;
        let sandbox = create(&platform).await?;
        // 256 MiB is the limit. `tail` keeps a line until it ends, and /dev/zero has no line end.
        let _ = tokio::time::timeout(Duration::from_secs(60), sandbox.commands().run("tail /dev/zero")).await;
        let batches: Api<BatchSandbox> = Api::namespaced(platform.client().await?, "default");
        let failed = until(batches, sandbox.id(), "failed", |b| {
            b.status.as_ref().is_some_and(|s| s.phase == Some(BatchPhase::Failed))
        })
        .await?;
        let reasons: Vec<_> = failed.status.into_iter().flat_map(|s| s.conditions).filter_map(|c| c.reason).collect();
        ensure!(reasons.iter().any(|r| r == "OOMKilled"), "reasons: {reasons:?}");
        let told = sandbox.info().await?.status;
        ensure!(told.state == "Failed" && told.reason.as_deref() == Some("OOMKilled"), "{told:?}");
        let described = platform.kubectl_ok(&["describe", "batchsandbox", sandbox.id()], "")?;
        ensure!(described.contains("OOMKilled"), "{described}");
        Ok(())
    })
}

#[test]
fn a_sandbox_that_forks_without_end_stops_at_its_limit() -> Result<()> {
    need!("kubectl");
    let platform = Platform::start()?;
    block_on(async {
        pools::warm(&platform, &pools::seed_like("bounded", (2, 4), (2, 8))?, "bounded", 2).await?;
        let (bomb, neighbour) = (create(&platform).await?, create(&platform).await?);
        let forks = "for i in $(seq 1 20000); do sleep 120 & done; true";
        let run = tokio::time::timeout(Duration::from_secs(120), bomb.commands().run(forks)).await;
        let count = std::fs::read_dir("/proc")?.filter(|e| e.as_ref().is_ok_and(|e| is_pid(&e.file_name()))).count();
        ensure!(count < 15_000, "{count} processes run on the machine; the sandbox's limit did not hold: {run:?}");
        let well = tokio::time::timeout(Duration::from_secs(60), neighbour.commands().run("echo well"))
            .await
            .context("the neighbour hangs")??;
        ensure!(well.stdout_text().trim() == "well", "{well:?}");
        Ok(())
    })
}

fn is_pid(name: &std::ffi::OsStr) -> bool {
    name.to_str().is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
}
