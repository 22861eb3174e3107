//! The end of a server: unready first, then the last accept, then the end of what is in progress.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use common::{DEADLINE, KEY, World};
use futures::StreamExt as _;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;

#[tokio::test]
async fn a_stream_in_progress_ends_in_good_order_after_the_stop() {
    let mut world = World::with(|config| {
        config.limits.shutdown_delay = Duration::from_secs(1);
        config.limits.shutdown = DEADLINE;
    })
    .await;
    let go_on = Arc::new(Notify::new());
    let wait = go_on.clone();
    let stream = get(move || async move {
        let rest = futures::stream::once(async move {
            wait.notified().await;
            Ok::<_, std::io::Error>(Bytes::from_static(b"last"))
        });
        Body::from_stream(futures::stream::iter([Ok(Bytes::from_static(b"first "))]).chain(rest))
    });
    let port = world.pod_serves(Router::new().route("/", stream)).await;
    let id = world.created().await;
    let http = HttpClient::builder(TokioExecutor::new()).build_http::<Body>();
    let request = Request::builder().uri(format!("http://{}/v1/sandboxes/{id}/proxy/{port}/", world.address));
    let answer = http.request(request.header("open-sandbox-api-key", KEY).body(Body::empty()).unwrap()).await.unwrap();
    let mut body = answer.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "first ");

    world.stop();
    // Before the last accept: who has not heard of the stop is still served, and probes hear of it.
    let unready = async {
        loop {
            let probe = Request::builder().uri(format!("http://{}/readyz", world.address)).body(Body::empty()).unwrap();
            let answer = world.raw(probe).await;
            if answer.status == StatusCode::SERVICE_UNAVAILABLE {
                return String::from_utf8(answer.bytes.to_vec()).unwrap();
            }
        }
    };
    let text = tokio::time::timeout(DEADLINE, unready).await.expect("unready in time");
    assert!(text.contains("[-] serving: stopping"), "{text}");
    go_on.notify_one();
    let rest = tokio::time::timeout(DEADLINE, body.collect()).await.unwrap().expect("the stream ends in good order");
    assert_eq!(rest.to_bytes(), "last");
    world.shut_down().await;
}

#[tokio::test]
async fn a_connection_that_was_let_in_is_owed_an_answer_and_told_that_it_is_the_last() {
    let mut world = World::with(|config| config.limits.shutdown = DEADLINE).await;
    let mut used = TcpStream::connect(world.address).await.unwrap();
    let ask = format!("GET /health HTTP/1.1\r\nhost: {}\r\n\r\n", world.address);
    used.write_all(ask.as_bytes()).await.unwrap();
    let mut begun = [0; 12];
    used.read_exact(&mut begun).await.unwrap();
    assert_eq!(&begun, b"HTTP/1.1 200");
    let mut fresh = TcpStream::connect(world.address).await.unwrap();
    // Connections are accepted in their order: the answer on a third one shows that the fresh one was let in.
    let probe = Request::builder().uri(format!("http://{}/health", world.address)).body(Body::empty()).unwrap();
    assert_eq!(world.raw(probe).await.status, StatusCode::OK);

    world.stop();
    let mut rest = Vec::new();
    tokio::time::timeout(DEADLINE, used.read_to_end(&mut rest)).await.expect("idle ones end").unwrap();
    fresh.write_all(ask.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(DEADLINE, fresh.read_to_string(&mut answer)).await.expect("it ends").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
    world.shut_down().await;
}
