//! What runs beside the release: its test, and what goes before it goes.

use serde_json::Value;

use crate::helm;

const POOL: &str = "{metadata: {name: p}, spec: {capacitySpec: {bufferMin: 0, bufferMax: 0, poolMin: 0, poolMax: 1}, \
    template: {spec: {containers: [{name: c, image: i}]}}}}";

/// A variable of a pod's only container.
fn variable(spec: &Value, name: &str) -> Value {
    let variables = spec["containers"][0]["env"].as_array().unwrap();
    variables.iter().find(|v| v["name"] == name).unwrap()["value"].clone()
}

#[test]
fn the_test_takes_the_first_pool_the_server_knows() {
    if helm::missing() {
        return;
    }
    let elsewhere = POOL.replace("name: p", "name: q, namespace: elsewhere");
    let rendered = helm::render(&format!("{{tls: {{enabled: true}}, pools: [{elsewhere}, {POOL}]}}")).unwrap();
    let spec = &rendered.one("Pod", "opensandbox-test")["spec"];
    assert_eq!(variable(spec, "POOL"), "p");
    assert_eq!(variable(spec, "OPEN_SANDBOX_DOMAIN"), "opensandbox-server.opensandbox-system.svc");
    assert_eq!(variable(spec, "OPEN_SANDBOX_PROTOCOL"), "https");
    assert_eq!(variable(&helm::render("{}").unwrap().one("Pod", "opensandbox-test")["spec"], "POOL"), "");
    let named = helm::render("{tests: {pool: mine}, server: {service: {port: 8443}}}").unwrap();
    let spec = &named.one("Pod", "opensandbox-test")["spec"];
    assert_eq!(variable(spec, "POOL"), "mine");
    assert_eq!(variable(spec, "OPEN_SANDBOX_DOMAIN"), "opensandbox-server.opensandbox-system.svc:8443");
}

#[test]
fn sandboxes_end_before_the_release_or_stay_with_their_pools() {
    if helm::missing() {
        return;
    }
    let kept = |object: &Value| object["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep";
    let rendered = helm::render(&format!("pools: [{POOL}]")).unwrap();
    let job = rendered.one("Job", "opensandbox-uninstall");
    assert_eq!(job["metadata"]["annotations"]["helm.sh/hook"], "pre-delete");
    assert!(job["spec"]["activeDeadlineSeconds"].is_u64());
    assert!(!kept(rendered.one("Pool", "p")));

    let rendered = helm::render(&format!("{{uninstall: {{keepSandboxes: true}}, pools: [{POOL}]}}")).unwrap();
    assert!(!rendered.has("Job", "opensandbox-uninstall"));
    for (kind, name) in [("Pool", "p"), ("Secret", "opensandbox-keys"), ("NetworkPolicy", "opensandbox-pool-pods")] {
        assert!(kept(rendered.one(kind, name)), "{kind}");
    }
}
