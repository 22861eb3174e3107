//! Small things that many cases do.

use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::ground::Ground;
use opensandbox::{ConnectionConfig, Execution, Sandbox};

/// A sandbox from a pool.
pub async fn create(ground: &Ground, pool: &str) -> Result<Sandbox> {
    Ok(try_create(ground, pool, "agent").await?)
}

/// A sandbox from a pool, or the SDK's own error. The agent's name is in its environment.
pub async fn try_create(ground: &Ground, pool: &str, agent: &str) -> opensandbox::Result<Sandbox> {
    create_at(ground.connection(), pool, agent).await
}

/// [`try_create`], by another way to the server. The agent's name is in the metadata, too.
pub async fn create_at(connection: ConnectionConfig, pool: &str, agent: &str) -> opensandbox::Result<Sandbox> {
    Sandbox::builder("nginx:latest")
        .pool(pool)
        .env("AGENT_ID", agent)
        .entrypoint(["/bin/sh", "-c", "sleep infinity"])
        .timeout(Duration::from_secs(1200))
        .metadata("agent", agent)
        .connection(connection)
        .create()
        .await
}

/// Runs a command in a sandbox, as a future that owns what it needs.
pub async fn run(sandbox: &Sandbox, command: &str) -> opensandbox::Result<Execution> {
    sandbox.commands().run(command).await
}

/// What a command printed, with a minute to do so.
pub async fn output(sandbox: &Sandbox, command: &str) -> Result<String> {
    let said = tokio::time::timeout(Duration::from_secs(60), run(sandbox, command))
        .await
        .with_context(|| format!("{command:?} hangs"))??;
    Ok(said.stdout_text().trim().to_owned())
}

/// A text as one word of a shell.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
