//! Many agents at once, each with its own pod.

use std::collections::HashSet;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api_types::crd::{BatchSandbox, Pool};
use e2e::ground::{Ground, tool};
use e2e::watch::{LIMIT, none_left, until};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use opensandbox::Sandbox;
use serde::Deserialize;

use crate::kit::{output, run, try_create};
use crate::{pools, venv};

const AGENTS: usize = 20;

pub async fn agents_held_at_once_have_a_pod_and_an_environment_each(ground: &Ground) -> Result<()> {
    // All of them at once, and a kubelet starts a few pods a second: the buffer holds enough.
    let manifest = pools::seed_like("many", (AGENTS as i32, 30), (10, 50))?;
    pools::warm(ground, &manifest, "many", AGENTS as i32).await?;

    let names: Vec<_> = (0..AGENTS).map(|n| format!("agent-{n}")).collect();
    let sandboxes = try_join_all(names.iter().map(|name| try_create(ground, "many", name))).await?;
    let outputs = try_join_all(sandboxes.iter().map(|s| run(s, "echo $AGENT_ID; hostname"))).await?;
    let mut hosts = HashSet::new();
    for (n, output) in outputs.iter().enumerate() {
        let text = output.stdout_text();
        let (agent, host) = text.trim().split_once('\n').with_context(|| format!("agent {n} said {text:?}"))?;
        ensure!(agent == format!("agent-{n}"), "agent {n} has the environment of {agent}");
        ensure!(hosts.insert(host.to_owned()), "pod {host} has two agents");
    }
    try_join_all(sandboxes.iter().map(Sandbox::kill)).await?;
    ensure!(at_rest(ground, "many", 10).await?.status.is_some_and(|s| s.total <= 50), "the pool is too large");
    // What is terminating counts for nobody: the kubelet still has it for as long as its grace lasts.
    let pods = Api::<Pod>::namespaced(ground.client().await?, ground.namespace());
    let of_pool = watcher::Config::default().labels("pool=many");
    none_left(LIMIT, pods, of_pool, "used pods", |pod: &Pod| hosts.contains(&pod.name_any())).await?;
    Ok(())
}

/// Waits until nobody has a pod of a pool, and all its pods are warm.
async fn at_rest(ground: &Ground, pool: &str, available: i32) -> Result<Pool> {
    let pools = Api::<Pool>::namespaced(ground.client().await?, ground.namespace());
    until(pools, pool, "at rest", |p| {
        p.status.as_ref().is_some_and(|s| s.allocated == 0 && s.available >= available && s.available == s.total)
    })
    .await
}

/// What the script of many agents reports.
#[derive(Debug, Deserialize)]
struct Report {
    failures: Vec<String>,
    pods: Vec<String>,
    creates: Vec<f64>,
}

pub async fn sixty_python_agents_at_twenty_a_time_all_succeed(ground: &Ground) -> Result<()> {
    let python = venv::python()?;
    pools::warm(ground, &pools::seed_like("sixty", (10, 50), (10, 200))?, "sixty", 30).await?;
    let (domain, key) = (ground.domain(), ground.api_key());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/python/many_agents.py");
    let said = tokio::task::spawn_blocking(move || {
        tool::says(Command::new(python).arg(script).args([&domain, &key, "sixty", "60", "20"]), "")
    })
    .await??
    .ok()?;
    let mut report: Report = serde_json::from_str(&said).with_context(|| format!("{said:?} is no report"))?;
    ensure!(report.failures.is_empty(), "{} of 60 agents failed: {:#?}", report.failures.len(), report.failures);
    let pods: HashSet<_> = report.pods.iter().collect();
    ensure!(report.pods.len() == 60 && pods.len() == 60, "60 agents were in {} pods", pods.len());
    report.creates.sort_by(f64::total_cmp);
    println!("60 agents: create p50 {:.3} s, longest {:.3} s", report.creates[30], report.creates[59]);

    let rest = at_rest(ground, "sixty", 10).await?;
    ensure!(rest.status.is_some_and(|s| s.total <= 50), "the pool rests above its buffer");
    let client = ground.client().await?;
    let sandboxes = Api::<BatchSandbox>::namespaced(client, ground.namespace()).list(&ListParams::default()).await?;
    let leaked: Vec<_> =
        sandboxes.iter().filter(|s| s.spec.pool_ref.as_deref() == Some("sixty")).map(ResourceExt::name_any).collect();
    ensure!(leaked.is_empty(), "sandboxes have leaked: {leaked:?}");
    Ok(())
}

pub async fn a_pod_that_is_killed_is_a_typed_error_and_never_another_agents_pod(ground: &Ground) -> Result<()> {
    let manifest = pools::seed_like("many", (4, 8), (4, 20))?;
    pools::warm(ground, &manifest, "many", 4).await?;
    let sandbox = try_create(ground, "many", "agent-1").await?;
    let host = output(&sandbox, "hostname").await?;
    let sleeper = run(&sandbox, "sleep 300");
    ground.kubectl_ok(&["delete", "pod", &host, "--grace-period=0", "--force", "--wait=false"], "")?;
    let ended = tokio::time::timeout(Duration::from_secs(60), sleeper).await.context("the command hangs")?;
    ensure!(ended.map(|e| e.exit_code != Some(0)).unwrap_or(true), "a killed command has not succeeded");
    let again = tokio::time::timeout(Duration::from_secs(60), sandbox.commands().run("hostname"))
        .await
        .context("a command in a lost sandbox hangs")?;
    ensure!(again.is_err(), "a lost sandbox answers: {again:?}");
    Ok(())
}
