//! Bad input: a clear answer each time, and nothing half done.

use std::process::Command;

use anyhow::{Result, ensure};
use api_types::ErrorBody;
use api_types::crd::BatchSandbox;
use api_types::names::headers;
use e2e::ground::{Ground, tool};
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::pools;

struct Case {
    name: &'static str,
    body: Value,
    status: u16,
    code: &'static str,
    /// A word the message must have.
    says: &'static str,
}

fn pooled(pool: &str, more: Value) -> Value {
    let mut body = json!({
        "image": {"uri": "nginx:latest"}, "timeout": 120, "resourceLimits": {}, "extensions": {"poolRef": pool},
        "entrypoint": ["tail", "-f", "/dev/null"],
    });
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    body
}

fn cases() -> Vec<Case> {
    let invalid = "SANDBOX::INVALID_PARAMETER";
    vec![
        Case {
            name: "unknown pool",
            body: pooled("nowhere", json!({})),
            status: 404,
            code: "KUBERNETES::POOL_NOT_FOUND",
            says: "nowhere",
        },
        Case {
            name: "pool that may have no pod",
            body: pooled("none", json!({})),
            status: 429,
            code: "KUBERNETES::POOL_CAPACITY_EXHAUSTED",
            says: "none",
        },
        Case {
            name: "environment name with =",
            body: pooled("good", json!({"env": {"A=B": "x"}})),
            status: 400,
            code: invalid,
            says: "A=B",
        },
        Case {
            name: "timeout of a second",
            body: pooled("good", json!({"timeout": 1})),
            status: 400,
            code: invalid,
            says: "60",
        },
        Case {
            name: "entrypoint that is no program",
            body: pooled("good", json!({"entrypoint": ["/no/such/program"]})),
            status: 500,
            code: "KUBERNETES::POD_FAILED",
            says: "/no/such/program",
        },
        Case {
            name: "volumes with a pool",
            body: pooled("good", json!({"volumes": [{"name": "v", "mountPath": "/v", "host": {"path": "/"}}]})),
            status: 400,
            code: invalid,
            says: "volumes",
        },
        Case {
            name: "wrong type",
            body: pooled("good", json!({"env": "A=B"})),
            status: 400,
            code: invalid,
            says: "env",
        },
        Case {
            name: "image that does not exist",
            body: json!({"image": {"uri": "no.such.registry.invalid/no/image:1"}, "timeout": 120, "resourceLimits": {}, "entrypoint": ["sleep", "infinity"]}),
            status: 500,
            code: "KUBERNETES::POD_FAILED",
            says: "no.such.registry.invalid",
        },
    ]
}

pub async fn the_lifecycle_api_says_what_was_wrong_and_leaves_nothing(ground: &Ground) -> Result<()> {
    pools::warm(ground, &pools::seed_like("good", (2, 4), (2, 8))?, "good", 2).await?;
    ground.kubectl_ok(&["apply", "-f", "-"], &pools::seed_like("none", (1, 1), (0, 0))?)?;
    let http = reqwest::Client::new();
    let url = format!("http://{}/v1/sandboxes", ground.domain());
    for case in cases() {
        let answer = http.post(&url).header(headers::API_KEY, ground.api_key()).json(&case.body).send().await?;
        let status = answer.status().as_u16();
        let text = answer.text().await?;
        let error: ErrorBody = serde_json::from_str(&text)
            .map_err(|e| anyhow::anyhow!("{}: {status} {text:?} is no error body: {e}", case.name))?;
        ensure!(status == case.status && error.code == case.code, "{}: {status} {error:?}", case.name);
        ensure!(error.message.contains(case.says), "{}: {:?} does not say {:?}", case.name, error.message, case.says);
    }
    let large = http.post(&url).header(headers::API_KEY, ground.api_key()).body(vec![b' '; 100 << 20]).send().await;
    ensure!(large.map_or(true, |a| a.status() == 413), "a body of 100 MiB was taken");
    let keyless = http.get(&url).send().await?;
    ensure!(keyless.status() == 401, "without a key: {}", keyless.status());
    let wrong = http.get(&url).header(headers::API_KEY, "wrong").send().await?;
    ensure!(wrong.status() == 401, "with a wrong key: {}", wrong.status());
    let left: Api<BatchSandbox> = Api::namespaced(ground.client().await?, ground.namespace());
    let left = left.list(&ListParams::default()).await?;
    // Another case's sandboxes are of another pool.
    let ours = |b: &&BatchSandbox| matches!(b.spec.pool_ref.as_deref(), None | Some("good" | "none"));
    let alive: Vec<_> = left.iter().filter(ours).filter(|b| b.metadata.deletion_timestamp.is_none()).collect();
    ensure!(alive.is_empty(), "refused sandboxes were left: {alive:?}");
    Ok(())
}

pub async fn a_manifest_of_wrong_types_is_refused_with_its_path(ground: &Ground) -> Result<()> {
    let manifest = pools::seed_like("typed", (1, 2), (1, 4))?.replace("\"bufferMin\":1", "\"bufferMin\":\"one\"");
    let said = ground.kubectl_says(&["apply", "-f", "-"], &manifest)?.refused()?;
    ensure!(said.contains("spec.capacitySpec.bufferMin"), "{said}");
    Ok(())
}

pub async fn a_port_in_use_is_named_and_nothing_is_started(_: &Ground) -> Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let home = tempfile::tempdir()?;
    let mut up = Command::new(e2e::platform::binaries()?.join("osb"));
    up.env("OSB_HOME", home.path());
    up.args(["up", "--detach", "--listen", &address, "--kube-listen", "127.0.0.1:0"]);
    let said = tool::says(&mut up, "")?.refused()?;
    ensure!(said.contains(&address) && said.contains("in use"), "{said}");
    Ok(())
}
