//! A terminal driven by a program: it types, reads what is printed, leaves, and comes back where it was.
//!
//! Usage: `cargo run -p opensandbox --example terminal -- [IMAGE]`, with the connection in the environment.

use opensandbox::{AttachTerminal, Client, NewTerminal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let image = std::env::args().nth(1).unwrap_or_else(|| "python:3.12".to_owned());
    let client = Client::from_env()?;
    let sandbox = client.sandbox(image).create().await?.kill_on_drop();
    let terminal = sandbox.terminals().create(NewTerminal::new().size(80, 24)).await?;

    let mut stream = terminal.attach().await?;
    stream.write_all(b"NAME=world; echo rea''dy\n").await?;
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("ready") {
        anyhow::ensure!(stream.read_buf(&mut seen).await? > 0, "the terminal ended: {:?}", stream.end());
    }
    let offset = stream.offset();
    drop(stream); // the shell runs on

    let mut stream = terminal.attach_with(AttachTerminal::new().since(offset).takeover()).await?;
    stream.resize(132, 43).await?;
    stream.write_all(b"echo hello $NAME; stty size; exit 3\n").await?;
    seen.clear();
    stream.read_to_end(&mut seen).await?;
    println!("{}", String::from_utf8_lossy(&seen));
    println!("exit code {:?}", stream.exit_code());
    sandbox.kill().await?;
    Ok(())
}
