//! Many agents at once, each with its own pod.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use api_types::crd::Pool;
use e2e::platform::{Platform, until};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use opensandbox::Sandbox;

use crate::{block_on, pools, run};

const AGENTS: usize = 20;

async fn create(platform: &Platform, agent: usize) -> Result<Sandbox, opensandbox::Error> {
    Sandbox::builder("nginx:latest")
        .pool("many")
        .env("AGENT_ID", format!("agent-{agent}"))
        .entrypoint(["/bin/sh", "-c", "sleep infinity"])
        .timeout(Duration::from_secs(600))
        .connection(platform.connection())
        .create()
        .await
}

#[test]
fn agents_held_at_once_have_a_pod_and_an_environment_each() -> Result<()> {
    need!("kubectl");
    let platform = Platform::start()?;
    block_on(async {
        let manifest = pools::seed_like("many", (10, 20), (10, 50))?;
        pools::warm(&platform, &manifest, "many", 10).await?;

        let sandboxes = try_join_all((0..AGENTS).map(|n| create(&platform, n))).await?;
        let outputs = try_join_all(sandboxes.iter().map(|s| run(s, "echo $AGENT_ID; hostname"))).await?;
        let mut hosts = HashSet::new();
        for (n, output) in outputs.iter().enumerate() {
            let text = output.stdout_text();
            let (agent, host) = text.trim().split_once('\n').with_context(|| format!("agent {n} said {text:?}"))?;
            ensure!(agent == format!("agent-{n}"), "agent {n} has the environment of {agent}");
            ensure!(hosts.insert(host.to_owned()), "pod {host} has two agents");
        }
        try_join_all(sandboxes.iter().map(Sandbox::kill)).await?;

        let client = platform.client().await?;
        let pool = until(Api::<Pool>::namespaced(client.clone(), "default"), "many", "at rest", |p| {
            p.status.as_ref().is_some_and(|s| s.allocated == 0 && s.available >= 10 && s.available == s.total)
        })
        .await?;
        ensure!(pool.status.is_some_and(|s| s.total <= 50));
        let left = Api::<Pod>::namespaced(client, "default").list(&ListParams::default().labels("pool=many")).await?;
        let used: Vec<_> = left.iter().map(ResourceExt::name_any).filter(|name| hosts.contains(name)).collect();
        ensure!(used.is_empty(), "used pods are still there: {used:?}");
        Ok(())
    })
}

#[test]
fn a_pod_that_is_killed_is_a_typed_error_and_never_another_agents_pod() -> Result<()> {
    need!("kubectl");
    let platform = Platform::start()?;
    block_on(async {
        let manifest = pools::seed_like("many", (4, 8), (4, 20))?;
        pools::warm(&platform, &manifest, "many", 4).await?;
        let sandbox = create(&platform, 1).await?;
        let host = sandbox.commands().run("hostname").await?.stdout_text().trim().to_owned();
        let sleeper = run(&sandbox, "sleep 300");
        platform.kubectl_ok(&["delete", "pod", &host, "--grace-period=0", "--force", "--wait=false"], "")?;
        let ended = tokio::time::timeout(Duration::from_secs(60), sleeper).await.context("the command hangs")?;
        ensure!(ended.map(|e| e.exit_code != Some(0)).unwrap_or(true), "a killed command has not succeeded");
        let again = tokio::time::timeout(Duration::from_secs(60), sandbox.commands().run("hostname"))
            .await
            .context("a command in a lost sandbox hangs")?;
        ensure!(again.is_err(), "a lost sandbox answers: {again:?}");
        Ok(())
    })
}
