//! The server's and the controller's settings, as they are handed over.

use crate::helm::{self, Rendered};

fn config(rendered: &Rendered) -> String {
    rendered.one("ConfigMap", "opensandbox-server")["data"]["config.toml"].as_str().unwrap().to_owned()
}

#[test]
fn the_file_says_what_the_values_say() {
    if helm::missing() {
        return;
    }
    let rendered = helm::render(
        "{sandboxes: {namespace: agents}, server: {publicHost: 'x:1', maxSandboxTimeoutSeconds: 3600, \
        config: {kubernetes: {pool_acquisition_timeout_seconds: 7}, log: {level: debug}, server: {a: {b: [1, x]}}}}}",
    )
    .unwrap();
    let file = config(&rendered);
    for line in [
        "endpoints = \"proxy\"",
        "eip = \"x:1\"",
        "max_sandbox_timeout_seconds = 3600",
        "namespace = \"agents\"",
        "pool_acquisition_timeout_seconds = 7",
        "timeout_graceful_shutdown = 290",
        "[log]",
        "level = \"debug\"",
        "[server.a]",
        "b = [1,\"x\"]",
    ] {
        assert!(file.lines().any(|l| l == line), "{line}\n{file}");
    }
    assert!(file.contains(&format!("execd_image = \"opensandbox/execd:{}\"", env!("CARGO_PKG_VERSION"))), "{file}");
}

#[test]
fn a_change_of_the_file_rolls_the_servers() {
    if helm::missing() {
        return;
    }
    let sum = |values: &str| {
        let rendered = helm::render(values).unwrap();
        let pod = &rendered.one("Deployment", "opensandbox-server")["spec"]["template"];
        pod["metadata"]["annotations"]["checksum/config"].clone()
    };
    assert_eq!(sum("{}"), sum("{}"));
    assert_ne!(sum("{}"), sum("server: {publicHost: x}"));
}

#[test]
fn an_open_server_is_told_so_in_words() {
    if helm::missing() {
        return;
    }
    let closed = helm::render("{}").unwrap().arguments("opensandbox-server");
    assert!(closed.iter().any(|a| a.starts_with("--api-keys-file=")) && !closed.iter().any(|a| a.contains("insecure")));
    let open = helm::render("auth: {insecure: true}").unwrap().arguments("opensandbox-server");
    assert!(open.contains(&"--insecure=YES".to_owned()) && !open.iter().any(|a| a.contains("api-keys")));
}

#[test]
fn a_made_certificate_names_the_service() {
    if helm::missing() {
        return;
    }
    let rendered = helm::render("{tls: {enabled: true, extraNames: [a.example.com, 192.0.2.1]}}").unwrap();
    let secret = rendered.one("Secret", "opensandbox-server-tls");
    let names = secret["metadata"]["annotations"]["opensandbox.io/names"].as_str().unwrap();
    for name in ["opensandbox-server.opensandbox-system.svc", "localhost", "a.example.com", "127.0.0.1", "192.0.2.1"] {
        assert!(names.split(',').any(|n| n == name), "{name}: {names}");
    }
    let port = &rendered.one("Service", "opensandbox-server")["spec"]["ports"][0];
    assert_eq!((&port["name"], &port["port"]), (&"https".into(), &443.into()));
    let arguments = rendered.arguments("opensandbox-server");
    assert!(arguments.iter().any(|a| a.starts_with("--tls-cert-file=")), "{arguments:?}");
}

#[test]
fn two_of_each_survive_a_drain() {
    if helm::missing() {
        return;
    }
    let rendered = helm::render("{}").unwrap();
    for name in ["opensandbox-controller-manager", "opensandbox-server"] {
        assert_eq!(rendered.one("Deployment", name)["spec"]["replicas"], 2);
        assert_eq!(rendered.one("PodDisruptionBudget", name)["spec"]["maxUnavailable"], 1);
    }
    let rendered = helm::render("{controller: {replicas: 1}, server: {replicas: 1}}").unwrap();
    assert_eq!(rendered.all("PodDisruptionBudget").count(), 0, "one replica must not keep a node from being drained");
}
