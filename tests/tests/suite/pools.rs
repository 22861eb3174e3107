//! Pools that the tests use.

use anyhow::Result;
use api_types::crd::Pool;
use e2e::ground::Ground;
use e2e::watch::until;
use kube::Api;

/// The pool of the example, as it lies there.
pub const SEED: &str = include_str!("../../../examples/pool-agent-production.yaml");

/// The example's pool with another name, other sizes and requests so small that hundreds fit on a laptop.
pub fn seed_like(name: &str, buffer: (i32, i32), pool: (i32, i32)) -> Result<String> {
    let mut manifest: serde_json::Value = serde_saphyr::from_str(SEED)?;
    manifest["metadata"]["name"] = name.into();
    manifest["spec"]["template"]["metadata"]["labels"]["pool"] = name.into();
    manifest["spec"]["capacitySpec"] =
        serde_json::json!({"bufferMin": buffer.0, "bufferMax": buffer.1, "poolMin": pool.0, "poolMax": pool.1});
    if let Some(containers) = manifest["spec"]["template"]["spec"]["containers"].as_array_mut() {
        for container in containers {
            container["resources"]["requests"] = serde_json::json!({"cpu": "1m", "memory": "1Mi"});
        }
    }
    Ok(serde_json::to_string(&manifest)?)
}

/// A pool without execd: a plain container beside task-executor.
pub fn without_execd(name: &str, buffer: (i32, i32), pool: (i32, i32)) -> Result<String> {
    let mut manifest: serde_json::Value = serde_json::from_str(&seed_like(name, buffer, pool)?)?;
    let spec = &mut manifest["spec"]["template"]["spec"];
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("initContainers");
        spec.remove("volumes");
    }
    spec["containers"][0] = serde_json::json!({
        "name": "sandbox-container", "image": "nginx:latest", "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "infinity"],
    });
    Ok(serde_json::to_string(&manifest)?)
}

/// Applies a pool and waits until it has so many warm pods.
pub async fn warm(ground: &Ground, manifest: &str, name: &str, available: i32) -> Result<Pool> {
    ground.kubectl_ok(&["apply", "-f", "-"], manifest)?;
    available_in(ground, name, available).await
}

/// Waits until a pool has so many warm pods.
pub async fn available_in(ground: &Ground, name: &str, available: i32) -> Result<Pool> {
    let pools: Api<Pool> = Api::namespaced(ground.client().await?, ground.namespace());
    until(pools, name, "warm", |p| p.status.as_ref().is_some_and(|s| s.available >= available)).await
}
