//! A web preview: a site is copied into a sandbox and served there, and its address is printed once it is open.
//!
//! Usage: `cargo run -p opensandbox --example web_preview -- DIRECTORY [IMAGE]`, with the connection in the environment.

use std::time::Duration;

use opensandbox::{Client, RunCommand};

const PORT: u16 = 8000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let directory = args.next().unwrap_or_else(|| ".".to_owned());
    let image = args.next().unwrap_or_else(|| "python:3.12".to_owned());
    let client = Client::from_env()?;
    let sandbox = client.sandbox(image).create().await?.kill_on_drop();
    let entries = sandbox.files().upload_dir(&directory, "/tmp/site", |_| {}).await?;
    println!("{entries} entries are up");
    let serve = RunCommand::argv(["python3", "-m", "http.server", "8000"]).cwd("/tmp/site").background();
    let server = sandbox.commands().run_with(serve).await?;
    let opened = tokio::time::timeout(Duration::from_secs(30), sandbox.port_opened(PORT)).await;
    if !matches!(opened, Ok(Ok(()))) {
        let logs = sandbox.commands().logs(&server.id, 0).await?;
        anyhow::bail!("nothing serves: {}", String::from_utf8_lossy(&logs.content));
    }
    let endpoint = sandbox.endpoint(PORT).await?;
    println!("http://{}", endpoint.endpoint);
    println!("Ctrl-C ends it");
    tokio::signal::ctrl_c().await?;
    sandbox.kill().await?;
    Ok(())
}
