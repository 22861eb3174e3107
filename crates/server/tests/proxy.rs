//! The proxy on the wire: streams, WebSockets, headers, and a sandbox that changes its pod.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod common;

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request as AxumRequest, WebSocketUpgrade};
use axum::response::IntoResponse as _;
use axum::routing::{any, get};
use bytes::Bytes;
use common::{DEADLINE, KEY, World};
use futures::{SinkExt as _, StreamExt as _};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

/// Tells what arrived.
async fn echo(request: AxumRequest) -> axum::Json<serde_json::Value> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let headers: serde_json::Map<_, _> =
        parts.headers.iter().map(|(k, v)| (k.to_string(), json!(v.to_str().unwrap()))).collect();
    axum::Json(
        json!({"method": parts.method.as_str(), "uri": parts.uri.to_string(), "headers": headers, "body": String::from_utf8_lossy(&body)}),
    )
}

#[tokio::test]
async fn requests_pass_as_they_are_and_credentials_do_not() {
    let world = World::new().await;
    let port = world.pod_serves(Router::new().fallback(any(echo))).await;
    let id = world.created().await;
    let request = Request::builder()
        .method(Method::PUT)
        .uri(format!("http://{}/v1/sandboxes/{id}/proxy/{port}/a%2Fb//c?x=%20&y", world.address))
        .header("open-sandbox-api-key", KEY)
        .header("authorization", "Bearer x")
        .header("cookie", "a=b")
        .header("x-forwarded-for", "6.6.6.6")
        .header("x-mine", "1")
        .body(Body::from("hello"))
        .unwrap();
    let seen = world.raw(request).await.json();
    assert_eq!(
        (&seen["method"], &seen["uri"], &seen["body"]),
        (&json!("PUT"), &json!("/a%2Fb//c?x=%20&y"), &json!("hello"))
    );
    let headers = &seen["headers"];
    assert_eq!(headers["x-mine"], "1");
    assert_eq!(headers["x-forwarded-for"], "127.0.0.1");
    assert_eq!(headers["x-forwarded-host"], world.address.to_string());
    for secret in ["authorization", "cookie", "open-sandbox-api-key", "x-execd-access-token"] {
        assert_eq!(headers.get(secret), None, "{secret}");
    }
    let root = world.get(&format!("/sandboxes/{id}/proxy/{port}")).await.json();
    assert_eq!(root["uri"], "/");
}

#[tokio::test]
async fn execd_gets_the_token_of_the_pod_that_is_current() {
    let world = World::new().await;
    if !world.execd_serves(Router::new().fallback(any(echo))).await {
        return;
    }
    let id = world.created().await;
    let token = async || {
        world.get(&format!("/v1/sandboxes/{id}/endpoints/44772")).await.json()["headers"]["X-EXECD-ACCESS-TOKEN"]
            .clone()
    };
    let first = token().await;
    let path = format!("/v1/sandboxes/{id}/proxy/44772/ping");
    assert_eq!(world.get(&path).await.json()["headers"]["x-execd-access-token"], first);

    // Another pod takes its place: a token that a client remembered is replaced.
    let grants =
        json!([{"index": 0, "pod": "b", "podUID": "another", "podIP": world.pod_ip, "epoch": 2, "state": "Claimed"}]);
    let patch = Patch::Merge(json!({"status": {"grants": grants}}));
    world.sandboxes().patch_status(&id, &PatchParams::default(), &patch).await.unwrap();
    let second = tokio::time::timeout(DEADLINE, async {
        loop {
            let now = token().await;
            if now != first {
                return now;
            }
        }
    })
    .await
    .unwrap();
    let request = Request::builder()
        .uri(format!("http://{}{path}", world.address))
        .header("open-sandbox-api-key", KEY)
        .header("x-execd-access-token", first.as_str().unwrap())
        .body(Body::empty())
        .unwrap();
    assert_eq!(world.raw(request).await.json()["headers"]["x-execd-access-token"], second);
}

#[tokio::test]
async fn a_stream_arrives_as_it_is_made() {
    let world = World::new().await;
    let (events, source) = tokio::sync::mpsc::channel::<&'static str>(1);
    let source = std::sync::Arc::new(tokio::sync::Mutex::new(Some(source)));
    let stream = move || {
        let source = source.clone();
        async move {
            let source = source.lock().await.take().unwrap();
            let body = futures::stream::unfold(source, async |mut source| {
                source.recv().await.map(|event| (Ok::<_, Infallible>(Bytes::from(event)), source))
            });
            ([("content-type", "text/event-stream")], Body::from_stream(body)).into_response()
        }
    };
    let port = world.pod_serves(Router::new().route("/events", get(stream))).await;
    let id = world.created().await;
    let request = Request::builder()
        .uri(format!("http://{}/v1/sandboxes/{id}/proxy/{port}/events", world.address))
        .header("open-sandbox-api-key", KEY)
        .body(Body::empty())
        .unwrap();
    let reading = async {
        let client: HttpClient<_, Body> = HttpClient::builder(TokioExecutor::new()).build_http();
        let mut answer = client.request(request).await.unwrap();
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        for event in ["one", "two"] {
            // Sent only after what came before was received: nothing is held back.
            events.send(event).await.unwrap();
            let frame = answer.body_mut().frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), event);
        }
        drop(events);
        assert!(answer.body_mut().frame().await.is_none());
    };
    tokio::time::timeout(DEADLINE, reading).await.unwrap();
}

#[tokio::test]
async fn websockets_pass_with_their_subprotocol() {
    let world = World::new().await;
    let serve = |upgrade: WebSocketUpgrade| async {
        upgrade.protocols(["tty"]).on_upgrade(|mut socket| async move {
            while let Some(Ok(message)) = socket.next().await {
                if socket.send(message).await.is_err() {
                    return;
                }
            }
        })
    };
    let port = world.pod_serves(Router::new().route("/ws", any(serve))).await;
    let id = world.created().await;
    let mut request =
        format!("ws://{}/v1/sandboxes/{id}/proxy/{port}/ws", world.address).into_client_request().unwrap();
    request.headers_mut().insert("open-sandbox-api-key", KEY.parse().unwrap());
    request.headers_mut().insert("sec-websocket-protocol", "tty".parse().unwrap());
    let talking = async {
        let stream = tokio::net::TcpStream::connect(world.address).await.unwrap();
        let (mut socket, answer) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        assert_eq!(answer.headers()["sec-websocket-protocol"], "tty");
        for message in [Message::text("hello"), Message::binary(vec![7; 100_000])] {
            socket.send(message.clone()).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), message);
        }
        socket.close(None).await.unwrap();
        while let Some(Ok(_)) = socket.next().await {}
    };
    tokio::time::timeout(DEADLINE, talking).await.unwrap();
}

#[tokio::test]
async fn a_port_that_nobody_serves_is_told() {
    let world = World::with(|config| config.limits.proxy_head = std::time::Duration::from_millis(200)).await;
    let id = world.created().await;
    let refused = world.get(&format!("/v1/sandboxes/{id}/proxy/9/x")).await;
    assert_eq!(refused.code(), "BACKEND_CONNECTION_FAILED");
    let silent = world.pod_serves(Router::new().fallback(any(std::future::pending::<StatusCode>))).await;
    assert_eq!(world.get(&format!("/v1/sandboxes/{id}/proxy/{silent}/x")).await.code(), "BACKEND_TIMEOUT");
    assert_eq!(world.get(&format!("/v1/sandboxes/{id}/proxy/99999/x")).await.code(), "DOCKER::INVALID_PORT");
    assert_eq!(world.get("/v1/sandboxes/none/proxy/80/x").await.code(), "KUBERNETES::SANDBOX_NOT_FOUND");

    let lost = Patch::Merge(json!({"status": {"phase": "Failed", "grants": [], "conditions": [
        {"type": "PodFailed", "status": "True", "reason": "OOMKilled", "message": "ate its memory"}]}}));
    world.sandboxes().patch_status(&id, &PatchParams::default(), &lost).await.unwrap();
    let gone = tokio::time::timeout(DEADLINE, async {
        loop {
            let answer = world.get(&format!("/v1/sandboxes/{id}/proxy/9/x")).await;
            if answer.status == StatusCode::GONE {
                return answer;
            }
        }
    })
    .await
    .unwrap();
    assert_eq!(gone.code(), "SANDBOX::GONE");
    assert!(gone.message().contains("ate its memory"));
    assert_eq!(world.get(&format!("/v1/sandboxes/{id}")).await.json()["status"]["reason"], "OOMKilled");
}

#[tokio::test]
async fn an_endpoint_answer_opens_its_own_port_without_a_key() {
    let world = World::with(|config| config.endpoints = server::EndpointMode::Proxy).await;
    let port = world.pod_serves(Router::new().fallback(any(echo))).await;
    let id = world.created().await;
    let endpoint = world.get(&format!("/v1/sandboxes/{id}/endpoints/{port}")).await.json();
    assert_eq!(endpoint["endpoint"], format!("{}/v1/sandboxes/{id}/proxy/{port}", world.address));
    let token = endpoint["headers"]["OpenSandbox-Secure-Access"].as_str().unwrap();
    let send = async |path: String, token: Option<&str>| {
        let mut request = Request::builder().uri(format!("http://{}{path}", world.address));
        if let Some(token) = token {
            request = request.header("OpenSandbox-Secure-Access", token);
        }
        world.raw(request.body(Body::empty()).unwrap()).await
    };
    let opened = send(format!("/v1/sandboxes/{id}/proxy/{port}/x"), Some(token)).await;
    assert_eq!(opened.json()["uri"], "/x");
    assert!(opened.json()["headers"].get("opensandbox-secure-access").is_none());
    for (path, token, code) in [
        (format!("/v1/sandboxes/{id}/proxy/44772/ping"), Some(token), "MISSING_OR_INVALID_SECURE_ACCESS"),
        (format!("/v1/sandboxes/{id}/proxy/{port}/x"), Some("wrong"), "MISSING_OR_INVALID_SECURE_ACCESS"),
        ("/v1/sandboxes/nobody/proxy/80/x".to_owned(), Some(token), "MISSING_OR_INVALID_SECURE_ACCESS"),
        (format!("/v1/sandboxes/{id}/proxy/{port}/x"), None, "MISSING_API_KEY"),
        (format!("/v1/sandboxes/{id}"), Some(token), "MISSING_API_KEY"),
    ] {
        assert_eq!(send(path.clone(), token).await.code(), code, "{path}");
    }
    let execd = world.get(&format!("/v1/sandboxes/{id}/endpoints/44772")).await.json();
    assert_eq!(execd["headers"].as_object().unwrap().len(), 2, "{execd}");
}
