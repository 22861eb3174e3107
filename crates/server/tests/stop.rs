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
