//! What one sandbox can do to its own daemons and to its neighbours: nothing.

use std::time::Duration;

use anyhow::{Result, ensure};
use api_types::names::headers;
use e2e::platform::Platform;
use opensandbox::Sandbox;

use crate::{block_on, pools};

async fn create(platform: &Platform) -> Result<Sandbox> {
    Ok(Sandbox::builder("nginx:latest")
        .pool("walls")
        .timeout(Duration::from_secs(600))
        .connection(platform.connection())
        .create()
        .await?)
}

/// One HTTP request from inside a sandbox, without any tool but bash. Gives the status line.
fn request(host: &str, port: u16, verb: &str, path: &str, body: &str) -> String {
    format!(
        "exec 3<>/dev/tcp/{host}/{port}; printf '{verb} {path} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\nContent-Type: application/json\\r\\nContent-Length: {}\\r\\n\\r\\n%s' '{body}' >&3; head -n 1 <&3",
        body.len()
    )
}

#[test]
fn a_sandbox_drives_neither_its_own_daemons_nor_a_neighbours() -> Result<()> {
    need!("kubectl");
    let platform = Platform::start()?;
    block_on(async {
        pools::warm(&platform, &pools::seed_like("walls", (3, 6), (3, 12))?, "walls", 3).await?;
        let (mine, other) = (create(&platform).await?, create(&platform).await?);
        let neighbour = other.endpoint(44772).await?.endpoint;
        let neighbour = neighbour.split(':').next().unwrap_or_default().to_owned();
        let task = r#"[{"name":"evil","process":{"command":["touch","/tmp/evil"]}}]"#;
        for (host, port, path, body) in [
            ("127.0.0.1", 5758, "/setTasks", task),
            (neighbour.as_str(), 5758, "/setTasks", task),
            (neighbour.as_str(), 44772, "/command", r#"{"command":"touch /tmp/evil"}"#),
            (neighbour.as_str(), 44772, "/v1/claim", "{}"),
        ] {
            let script = request(host, port, "POST", path, body);
            let said = mine.commands().run(&format!("bash -c {}", shell_quote(&script))).await?;
            let line = said.stdout_text();
            ensure!(line.contains(" 401 ") || line.contains(" 403 "), "{host}:{port}{path} answered {line:?}");
        }
        for sandbox in [&mine, &other] {
            let found = sandbox.commands().run("ls /tmp/evil").await?;
            ensure!(found.exit_code != Some(0), "a command was smuggled in");
        }

        // After the kill the old token opens nothing: not at the old address, not anywhere.
        let old = other.endpoint(44772).await?;
        other.kill().await?;
        let token = old.headers.unwrap_or_default().remove(headers::EXECD_ACCESS_TOKEN).unwrap_or_default();
        ensure!(!token.is_empty(), "the endpoint carries no token");
        let fresh = create(&platform).await?;
        let address = fresh.endpoint(44772).await?.endpoint;
        let answer = reqwest::Client::new()
            .post(format!("http://{address}/command"))
            .header(headers::EXECD_ACCESS_TOKEN, token)
            .header("Content-Type", "application/json")
            .body(r#"{"command":"id"}"#)
            .send()
            .await?;
        ensure!(answer.status() == 401, "the old token was answered with {}", answer.status());
        Ok(())
    })
}

fn shell_quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
