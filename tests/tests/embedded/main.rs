//! The embedded platform as its users have it: real containers, kubectl, the published Python SDK.
//!
//! Each test has a platform of its own. What needs root or a program that is not there says so.

#[macro_use]
extern crate e2e;

mod agents;
mod bad_input;
mod crash;
mod isolation;
mod limits;
mod pools;
mod seed;
mod tasks;
mod venv;

/// Runs a command in a sandbox, as a future that owns what it needs.
async fn run(sandbox: &opensandbox::Sandbox, command: &str) -> Result<opensandbox::Execution, opensandbox::Error> {
    sandbox.commands().run(command).await
}

/// Runs an async test body with a deadline of its own.
fn block_on<T>(body: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async { tokio::time::timeout(std::time::Duration::from_secs(600), body).await? })
}
