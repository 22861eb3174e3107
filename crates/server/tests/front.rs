//! The front door: keys, ids, bounds, and what no route has.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod common;

use axum::body::Body;
use bytes::Bytes;
use common::{KEY, World};
use http::{Method, Request, StatusCode};
use serde_json::json;
use server::{ApiKeys, Caller, Config, Scope, Server};

#[tokio::test]
async fn every_route_but_three_needs_the_key() {
    let world = World::new().await;
    let send = async |path: &str, key: Option<&str>| {
        let mut request = Request::builder().uri(format!("http://{}{path}", world.address));
        if let Some(key) = key {
            request = request.header("OPEN-SANDBOX-API-KEY", key);
        }
        world.raw(request.body(Body::empty()).unwrap()).await
    };
    assert_eq!(send("/health", None).await.json(), json!({"status": "healthy"}));
    assert!(send("/version", None).await.json()["version"].is_string());
    assert_eq!(send("/openapi.json", None).await.json()["openapi"], "3.1.0");
    for path in ["/v1/sandboxes", "/v1/sandboxes/x/proxy/80/y", "/healthzzz", "/v1/health", "/nothing"] {
        assert_eq!(send(path, None).await.code(), "MISSING_API_KEY", "{path}");
        assert_eq!(send(path, Some("wrong")).await.code(), "INVALID_API_KEY", "{path}");
    }
    assert_eq!(send("/nothing", Some(KEY)).await.code(), "ROUTE_NOT_FOUND");
}

#[tokio::test]
async fn what_no_route_has_is_typed() {
    let world = World::new().await;
    let wrong_verb = world.send(Method::PUT, "/v1/sandboxes", json!({})).await;
    assert_eq!(wrong_verb.code(), "METHOD_NOT_ALLOWED");
    let allowed = wrong_verb.headers["allow"].to_str().unwrap();
    assert!(allowed.contains("GET") && allowed.contains("POST"), "{allowed}");
    assert_eq!(world.get("/metrics/events").await.code(), "ROUTE_NOT_FOUND");
    for (method, path) in [
        (Method::POST, "/v1/sandboxes/x/pause"),
        (Method::POST, "/sandboxes/x/resume"),
        (Method::POST, "/v1/sandboxes/x/snapshots"),
        (Method::GET, "/v1/snapshots"),
        (Method::PATCH, "/v1/sandboxes/x/networkpolicy"),
        (Method::GET, "/v1/templates/x"),
    ] {
        assert_eq!(world.send(method, path, None).await.code(), "SANDBOX::API_NOT_SUPPORTED", "{path}");
    }
    for id in ["x", "..%2Fsecrets%2Fx", "%00", "UPPER"] {
        let answer = world.get(&format!("/v1/sandboxes/{id}")).await;
        assert_eq!(answer.code(), "KUBERNETES::SANDBOX_NOT_FOUND", "{id}");
    }
}

#[tokio::test]
async fn request_ids_are_echoed() {
    let world = World::new().await;
    let request = Request::builder().uri(format!("http://{}/nothing", world.address)).header("X-Request-ID", "mine");
    let answer = world.raw(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.headers["x-request-id"], "mine");
}

#[tokio::test]
async fn a_huge_body_is_refused_without_being_read() {
    let world = World::new().await;
    let chunk = Bytes::from(vec![b' '; 1 << 20]);
    let chunks = futures::stream::iter((0..100).map(move |_| Ok::<_, std::io::Error>(chunk.clone())));
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://{}/v1/sandboxes", world.address))
        .header("open-sandbox-api-key", KEY)
        .header("content-length", 100 << 20);
    let answer = world.raw(request.body(Body::from_stream(chunks)).unwrap()).await;
    assert_eq!(answer.code(), "BODY_TOO_LARGE");
    let wrong = world.post("/v1/sandboxes", json!({"timeout": "soon"})).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    assert!(wrong.message().starts_with("timeout: "));
}

#[tokio::test]
async fn a_right_key_that_may_not_do_this_is_known_to_the_audit() {
    let world = World::new().await;
    let api_keys = ApiKeys::one("reader name=looker", Scope::Read).unwrap();
    let server = Server::new(world.client.clone(), Config { api_keys, ..Config::default() });
    let request =
        Request::builder().method(Method::DELETE).uri("/v1/pools/pool").header("open-sandbox-api-key", "reader");
    let answer = tower::ServiceExt::oneshot(server.router(), request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    assert_eq!(answer.extensions().get::<Caller>().unwrap().name, "looker");
}

#[tokio::test]
async fn the_sdks_report_is_taken() {
    let world = World::new().await;
    let report =
        json!({"eventType": "sandbox.create", "createDurationMs": 81, "success": true, "sandboxId": "x", "image": "y"});
    assert_eq!(world.post("/v1/metrics/events", report.clone()).await.status, StatusCode::NO_CONTENT);
    let mut other = report;
    other["eventType"] = json!("x");
    assert!(world.post("/v1/metrics/events", other).await.message().starts_with("eventType: "));
}

#[tokio::test]
async fn an_open_server_stays_on_loopback() {
    let world = World::new().await;
    let server = Server::new(world.client.clone(), Config::default());
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let refused = server.serve(listener, tokio_util::sync::CancellationToken::new()).await.unwrap_err();
    assert!(matches!(refused, server::ServeError::OpenToTheNetwork(_)));
}

#[tokio::test]
async fn web_pages_may_call_the_api_where_that_is_allowed_and_sandboxes_decide_for_themselves() {
    let world = World::with(|config| config.cors_origins = vec!["https://console.example".to_owned()]).await;
    let preflight = async |path: &str, origin: &str| {
        let request = Request::builder().method(Method::OPTIONS).uri(format!("http://{}{path}", world.address));
        let request = request.header("origin", origin).header("access-control-request-method", "POST");
        world.raw(request.body(Body::empty()).unwrap()).await
    };
    let allowed = preflight("/v1/sandboxes", "https://console.example").await;
    assert_eq!(allowed.headers["access-control-allow-origin"], "https://console.example");
    assert!(!allowed.headers.contains_key("access-control-allow-credentials"));
    let other = preflight("/v1/sandboxes", "https://elsewhere.example").await;
    assert!(!other.headers.contains_key("access-control-allow-origin"));
    assert_eq!(preflight("/v1/sandboxes/x/proxy/80/", "https://console.example").await.code(), "MISSING_API_KEY");
}

#[tokio::test]
async fn the_document_is_a_page_too() {
    let world = World::new().await;
    let request = Request::builder().uri(format!("http://{}/docs", world.address)).body(Body::empty()).unwrap();
    let page = world.raw(request).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.headers["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
    let text = String::from_utf8(page.bytes.to_vec()).unwrap();
    // The policy lets nothing in from elsewhere, and the page asks for nothing.
    assert!(text.contains("fetch(\"openapi.json\")"));
    assert!(["http://", "https://", " src=", "@import"].iter().all(|word| !text.contains(word)));
}
