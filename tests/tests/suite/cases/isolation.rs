//! What one sandbox can do to its own daemons and to its neighbours: nothing.

use anyhow::{Context as _, Result, ensure};
use api_types::names::headers;
use e2e::ground::Ground;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use opensandbox::Sandbox;

use crate::kit::{create, output, quote};
use crate::pools;

/// One HTTP request from inside a sandbox, without any tool but bash. Prints the status line, or that the network let
/// nothing through.
fn request(host: &str, port: u16, header: &str, path: &str, body: &str) -> String {
    let script = format!(
        "exec 3<>/dev/tcp/{host}/{port} || {{ echo unreachable; exit; }}; printf 'POST {path} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n{header}Content-Type: application/json\\r\\nContent-Length: {}\\r\\n\\r\\n%s' '{body}' >&3; head -n 1 <&3",
        body.len()
    );
    format!("timeout 20 bash -c {} 2>/dev/null || echo unreachable", quote(&script))
}

/// Whether a call was refused; where the network keeps neighbours apart, it does not even arrive.
fn refused(line: &str, neighbour: bool) -> bool {
    line.contains(" 401 ") || line.contains(" 403 ") || (neighbour && line.contains("unreachable"))
}

/// Address of the pod that a sandbox is in.
async fn address(ground: &Ground, sandbox: &Sandbox) -> Result<String> {
    let pods = Api::<Pod>::namespaced(ground.client().await?, ground.namespace());
    let pod = pods.get(&output(sandbox, "hostname").await?).await?;
    pod.status.and_then(|s| s.pod_ip).context("a running pod has an address")
}

pub async fn a_sandbox_drives_neither_its_own_daemons_nor_a_neighbours(ground: &Ground) -> Result<()> {
    pools::warm(ground, &pools::seed_like("walls", (3, 6), (3, 12))?, "walls", 3).await?;
    let (mine, other) = (create(ground, "walls").await?, create(ground, "walls").await?);
    let neighbour = address(ground, &other).await?;
    let task = r#"[{"name":"evil","process":{"command":["touch","/tmp/evil"]}}]"#;
    for (host, port, path, body) in [
        ("127.0.0.1", 5758, "/setTasks", task),
        (neighbour.as_str(), 5758, "/setTasks", task),
        (neighbour.as_str(), 44772, "/command", r#"{"command":"touch /tmp/evil"}"#),
        (neighbour.as_str(), 44772, "/v1/claim", "{}"),
    ] {
        let line = output(&mine, &request(host, port, "", path, body)).await?;
        ensure!(refused(&line, host != "127.0.0.1"), "{host}:{port}{path} answered {line:?}");
    }
    for sandbox in [&mine, &other] {
        let found = sandbox.commands().run("ls /tmp/evil").await?;
        ensure!(found.exit_code != Some(0), "a command was smuggled in");
    }
    Ok(())
}

pub async fn a_token_opens_nothing_of_the_next_owner(ground: &Ground) -> Result<()> {
    pools::warm(ground, &pools::seed_like("walls", (3, 6), (3, 12))?, "walls", 3).await?;
    let (mine, other) = (create(ground, "walls").await?, create(ground, "walls").await?);
    let old = other.endpoint(44772).await?;
    other.kill().await?;
    let token = old.headers.unwrap_or_default().remove(headers::EXECD_ACCESS_TOKEN).unwrap_or_default();
    ensure!(!token.is_empty(), "the endpoint carries no token");
    let fresh = create(ground, "walls").await?;

    // From a neighbour, at the pod's own address.
    let header = format!("{}: {token}\\r\\n", headers::EXECD_ACCESS_TOKEN);
    let host = address(ground, &fresh).await?;
    let line = output(&mine, &request(&host, 44772, &header, "/command", r#"{"command":"id"}"#)).await?;
    ensure!(refused(&line, true), "the old token was answered with {line:?}");

    // From here, where the endpoint leads; by the token alone, since who has the key may do more.
    let endpoint = fresh.endpoint(44772).await?.endpoint;
    let answer = reqwest::Client::new()
        .post(format!("http://{endpoint}/command"))
        .header(headers::EXECD_ACCESS_TOKEN, token)
        .header("Content-Type", "application/json")
        .body(r#"{"command":"id"}"#)
        .send()
        .await?;
    ensure!(answer.status() == 401, "the old token was answered with {}", answer.status());
    Ok(())
}
