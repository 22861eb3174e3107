//! An agent on the pool: one sandbox out of the warm pool, one task in it, and the pod back in the
//! pool afterwards.
//!
//! Usage: `cargo run -p opensandbox --example agent -- HOST:PORT [API_KEY]`

use std::{process::ExitCode, time::Duration};

use opensandbox::{Client, ConnectionConfig, Execution, Sandbox};

fn connection() -> ConnectionConfig {
    let mut args = std::env::args().skip(1);
    let config = args.next().map(ConnectionConfig::new).unwrap_or_default();
    match args.next() {
        Some(key) => config.api_key(key),
        None => config,
    }
}

async fn create_agent_sandbox(client: &Client, agent_id: &str) -> opensandbox::Result<Sandbox> {
    client
        .sandbox("nginx:latest") // ignored: the pool decides the image
        .pool("agent-pool")
        .entrypoint(["/bin/sh", "-c", "sleep infinity"])
        .env("AGENT_ID", agent_id)
        .timeout(Duration::from_secs(3600))
        .kill_on_drop(true)
        .create()
        .await
}

async fn handle_agent_request(client: &Client, agent_id: &str, task: &str) -> opensandbox::Result<Execution> {
    let sandbox = create_agent_sandbox(client, agent_id).await?;
    let execution = sandbox.commands().run(task).await;
    sandbox.kill().await?;
    execution
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let client = Client::new(connection())?;
    let execution = handle_agent_request(&client, "agent-1", "echo hello from $AGENT_ID; hostname").await?;
    for line in &execution.stdout {
        println!("{}", line.text());
    }
    Ok(if execution.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
