//! What is missing in the cluster is named at `/readyz`, and what happened is in the metrics.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;

use axum::body::Body;
use common::{DEADLINE, Fate, World, tampered};
use http::{Method, Request, StatusCode};
use prometheus_client::encoding::text;
use server::{ApiKeys, Config, Server};
use telemetry::Registry;

/// Asks until the report says a word.
async fn report(world: &World, server: std::net::SocketAddr, word: &str) -> (StatusCode, String) {
    let asking = async {
        loop {
            let request = Request::builder().uri(format!("http://{server}/readyz")).body(Body::empty()).unwrap();
            let answer = world.raw(request).await;
            let text = String::from_utf8(answer.bytes.to_vec()).unwrap();
            if text.contains(word) {
                return (answer.status, text);
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, asking).await.unwrap_or_else(|_| panic!("{word:?} was not reported in time"))
}

#[tokio::test]
async fn a_server_that_sees_everything_is_ready_without_a_key() {
    let world = World::new().await;
    let (status, text) = report(&world, world.address, "[+] access").await;
    assert_eq!(status, StatusCode::OK, "{text}");
    let health = Request::builder().uri(format!("http://{}/healthz", world.address)).body(Body::empty()).unwrap();
    assert_eq!(world.raw(health).await.bytes, "ok\n");
}

#[tokio::test]
async fn missing_definitions_rights_and_servers_are_named() {
    let world = World::new().await;
    let start = async |fate: fn(&Request<kube::client::Body>) -> Fate| {
        world.another(tampered(world.client.clone(), fate), |config| config.namespace = "team-a".to_owned()).await
    };
    let crds = start(|r| if r.uri().path().contains("/pools") { Fate::Refuse(404, "NotFound") } else { Fate::Pass });
    let (status, text) = report(&world, crds.await, "[-] pools: the CRD").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(text.contains("pools.sandbox.opensandbox.io") && text.contains("charts/opensandbox/crds"), "{text}");

    let rights = start(|r| match r.uri().path() {
        path if path.contains("/batchsandboxes") => Fate::Refuse(403, "Forbidden"),
        _ => Fate::Pass,
    });
    let (_, text) =
        report(&world, rights.await, "[-] batchsandboxes: batchsandboxes.sandbox.opensandbox.io in namespace team-a")
            .await;
    assert!(text.contains("in namespace team-a"), "{text}");

    let away = start(|_| Fate::Refuse(503, "ServiceUnavailable"));
    report(&world, away.await, "the API server answers 503").await;
}

#[tokio::test]
async fn requests_creates_and_refused_keys_are_counted() {
    let world = World::new().await;
    let server = Server::new(world.client.clone(), Config { api_keys: ApiKeys::new(["k"]), ..Config::default() });
    assert!(server.ready(DEADLINE).await);
    let mut registry = Registry::with_prefix("opensandbox");
    server.register(&mut registry);
    let registry = Arc::new(registry);
    let call = async |method: Method, path: &str, key: &str, body: String| {
        let request = Request::builder().method(method).uri(path).header("open-sandbox-api-key", key);
        let request = request.header("content-type", "application/json").body(Body::from(body)).unwrap();
        let answer = tower::ServiceExt::oneshot(server.router(), request).await.unwrap();
        axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    };
    call(Method::POST, "/v1/sandboxes", "k", common::from_pool("claim").to_string()).await;
    call(Method::GET, "/v1/sandboxes/nobody", "k", String::new()).await;
    call(Method::GET, "/v1/sandboxes/nobody", "wrong", String::new()).await;
    let mut shown = String::new();
    text::encode(&mut shown, &registry).unwrap();
    for line in [
        r#"opensandbox_server_requests_total{route="/v1/sandboxes",method="POST",status="202"} 1"#,
        r#"opensandbox_server_requests_total{route="/v1/sandboxes/{id}",method="GET",status="404"} 1"#,
        r#"opensandbox_server_requests_total{route="/v1/sandboxes/{id}",method="GET",status="401"} 1"#,
        r#"opensandbox_server_creates_total{outcome="ok",source="pool"} 1"#,
        r#"opensandbox_server_create_seconds_count{phase="execd",source="pool"} 1"#,
        r#"opensandbox_server_auth_failures_total{reason="invalid"} 1"#,
        "opensandbox_server_requests_in_flight 0",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
}

#[tokio::test]
async fn a_key_may_do_what_its_scope_says() {
    let world = World::new().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys");
    std::fs::write(&file, "looks scope=read\nruns scope=run name=ci\nall\n").unwrap();
    let keys = ApiKeys::read(&file).unwrap();
    let server = world.another(world.client.clone(), |config| config.api_keys = keys).await;
    let id = world.created().await;
    let code = async |method: Method, path: String, key: &str| {
        let request = Request::builder().method(method).uri(format!("http://{server}{path}"));
        world.raw(request.header("open-sandbox-api-key", key).body(Body::empty()).unwrap()).await.status.as_u16()
    };
    let sandbox = format!("/v1/sandboxes/{id}");
    assert_eq!(code(Method::GET, sandbox.clone(), "looks").await, 200);
    assert_eq!(code(Method::GET, format!("{sandbox}/endpoints/80"), "looks").await, 403);
    assert_eq!(code(Method::GET, format!("{sandbox}/endpoints/80"), "runs").await, 200);
    assert_eq!(code(Method::DELETE, "/v1/pools/pool".to_owned(), "runs").await, 403);
    assert_eq!(code(Method::DELETE, sandbox.clone(), "looks").await, 403);
    assert_eq!(code(Method::DELETE, sandbox, "runs").await, 204);
    assert_eq!(code(Method::DELETE, "/v1/pools/empty-pool".to_owned(), "all").await, 204);
}
