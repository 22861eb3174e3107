//! The seed's own lines: its pool, its agent, unchanged.

use std::process::Command;

use anyhow::{Result, ensure};
use e2e::ground::Ground;

use crate::{pools, venv};

pub async fn the_seed_pool_is_what_kubectl_shows(ground: &Ground) -> Result<()> {
    ground.seed_pool().await?;
    pools::available_in(ground, "agent-pool", 30).await?;

    let columns = ground.kubectl_ok(&["get", "pool", "agent-pool"], "")?;
    ensure!(columns.contains("TOTAL") && columns.contains("ALLOCATED") && columns.contains("AVAILABLE"), "{columns}");
    let status = ground.kubectl_ok(&["get", "pool", "agent-pool", "-o", "jsonpath={.status}"], "")?;
    let status: serde_json::Value = serde_json::from_str(&status)?;
    ensure!(status["total"] == 30 && status["allocated"] == 0 && status["available"] == 30, "{status}");

    let pods = ground.kubectl_ok(&["get", "pods", "-l", "pool=agent-pool", "--no-headers"], "")?;
    ensure!(pods.lines().count() == 30, "{pods}");
    ensure!(pods.lines().all(|l| l.contains("2/2") && l.contains("Running")), "{pods}");
    let pod = pods.split_whitespace().next().unwrap_or_default();

    let described = ground.kubectl_ok(&["describe", "pod", pod], "")?;
    ensure!(described.contains("Started"), "no events in: {described}");
    ground.kubectl_ok(&["logs", pod, "-c", "task-executor"], "")?;
    let processes = ground.kubectl_ok(&["exec", pod, "-c", "sandbox-container", "--", "ps", "aux"], "")?;
    ensure!(processes.contains("/opt/opensandbox/bin/execd"), "{processes}");
    // Its name on the embedded cluster, and its place in the image, which is the published one's.
    let beside = ["task-executor", "/workspace/server"].iter().any(|name| processes.contains(name));
    ensure!(beside, "the pod's containers do not share processes: {processes}");
    let listening = ground.kubectl_ok(
        &["exec", pod, "-c", "sandbox-container", "--", "bash", "-c", "echo > /dev/tcp/localhost/44772 && echo open"],
        "",
    )?;
    ensure!(listening.trim() == "open", "{listening}");
    Ok(())
}

pub async fn the_python_agent_runs_unchanged(ground: &Ground) -> Result<()> {
    let python = venv::python()?;
    ground.seed_pool().await?;
    pools::available_in(ground, "agent-pool", 10).await?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/agent.py");
    let run = Command::new(python).arg(script).arg(ground.domain()).arg(ground.api_key()).output()?;
    let said = String::from_utf8_lossy(&run.stdout);
    ensure!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
    let lines: Vec<_> = said.lines().collect();
    ensure!(lines.len() == 2 && lines[0] == "hello from agent-1" && lines[1].starts_with("agent-pool-"), "{said}");
    Ok(())
}
