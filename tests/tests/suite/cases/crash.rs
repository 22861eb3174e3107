//! SIGKILL of a component: sandboxes live on, and what ended meanwhile says why.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::ground::{Component, Ground};
use futures::future::try_join_all;

use crate::kit::{run, try_create};
use crate::pools;

pub async fn sandboxes_outlive_a_killed_controller(ground: &Ground) -> Result<()> {
    outlive(ground, Component::Controller, "kept").await
}

pub async fn sandboxes_outlive_a_killed_server(ground: &Ground) -> Result<()> {
    outlive(ground, Component::Server, "served").await
}

async fn outlive(ground: &Ground, component: Component, pool: &str) -> Result<()> {
    pools::warm(ground, &pools::seed_like(pool, (4, 8), (4, 20))?, pool, 4).await?;
    let names: Vec<_> = (0..4).map(|n| format!("agent-{n}")).collect();
    let sandboxes = try_join_all(names.iter().map(|name| try_create(ground, pool, name))).await?;
    let before = try_join_all(sandboxes.iter().map(|s| run(s, "echo $AGENT_ID; hostname"))).await?;

    ground.crash(component).await?;
    // What ends while the component is away: the first sandbox loses its container.
    let _ = tokio::time::timeout(Duration::from_secs(10), sandboxes[0].commands().run("kill -9 -1")).await;
    ground.recover(component).await?;

    for (n, sandbox) in sandboxes.iter().enumerate().skip(1) {
        let found = opensandbox::Client::new(ground.connection())?.connect(sandbox.id()).await?;
        let after = found.commands().run("echo $AGENT_ID; hostname").await?;
        ensure!(after.stdout_text() == before[n].stdout_text(), "sandbox {n} has changed: {after:?}");
    }
    try_join_all(sandboxes.iter().map(|s| {
        let id = s.id().to_owned();
        let connection = ground.connection();
        async move { opensandbox::Client::new(connection)?.kill(&id).await }
    }))
    .await
    .context("cannot kill the sandboxes")?;
    Ok(())
}
