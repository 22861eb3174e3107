//! Callers that are slow, silent or too many: each is bounded, and others are served meanwhile.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use common::{DEADLINE, KEY, World};
use http::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// A bound that is reached soon; what is asserted is that it is reached at all.
const SOON: Duration = Duration::from_millis(200);

async fn in_time<T>(what: &str, doing: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, doing).await.unwrap_or_else(|_| panic!("{what}: not in time"))
}

/// Opens a connection and sends this.
async fn say(world: &World, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// Everything until the server hangs up.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end as well.
    let _ = in_time("the end of a connection", stream.read_to_end(&mut bytes)).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Up to the end of the answer's head.
async fn head(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let reading = async {
        while !bytes.ends_with(b"\r\n\r\n") {
            bytes.push(stream.read_u8().await.unwrap());
        }
    };
    in_time("the head of an answer", reading).await;
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_head_that_never_ends_and_a_connection_that_rests_are_cut_off() {
    let world = World::with(|config| config.limits.header_read = SOON).await;
    for unfinished in ["", "GET /health HTTP/1.1\r\nhost: x\r\n", "GET /health HTTP/1.1\r\nhost: x\r\n\r\n"] {
        let mut stream = say(&world, unfinished).await;
        let said = rest(&mut stream).await;
        let answered = unfinished.ends_with("\r\n\r\n");
        assert_eq!(said.contains("200 OK"), answered, "{unfinished:?}: {said:?}");
    }
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_refused() {
    let world = World::with(|config| config.limits.body_arrival = SOON).await;
    let request = format!(
        "POST /v1/sandboxes HTTP/1.1\r\nhost: x\r\nopen-sandbox-api-key: {KEY}\r\ncontent-length: 100\r\n\r\n{{"
    );
    let mut stream = say(&world, &request).await;
    let said = head(&mut stream).await;
    assert!(said.starts_with("HTTP/1.1 504"), "{said}");
}

/// Tells when the stream it belongs to is let go.
struct Told(Arc<Notify>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[tokio::test]
async fn a_caller_that_reads_nothing_lets_the_sandbox_go() {
    let world = World::with(|config| config.limits.write_stall = SOON).await;
    let gone = Arc::new(Notify::new());
    let tell = gone.clone();
    let endless = get(move || async move {
        let told = Told(tell);
        let chunks = futures::stream::unfold(told, |told| async move {
            // Others on this thread get their turn, whoever reads or not.
            tokio::task::yield_now().await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 64 << 10])), told))
        });
        Body::from_stream(chunks)
    });
    let port = world.pod_serves(Router::new().route("/", endless)).await;
    let id = world.created().await;
    let request =
        format!("GET /v1/sandboxes/{id}/proxy/{port}/ HTTP/1.1\r\nhost: x\r\nopen-sandbox-api-key: {KEY}\r\n\r\n");
    let _silent = say(&world, &request).await;
    in_time("the end of the sandbox's stream", gone.notified()).await;
}

#[tokio::test]
async fn streams_have_a_bound_and_short_requests_go_on() {
    let world = World::with(|config| config.limits.streams = 2).await;
    let id = world.created().await;
    let request = format!("GET /v1/sandboxes/{id}/events HTTP/1.1\r\nhost: x\r\nopen-sandbox-api-key: {KEY}\r\n\r\n");
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = say(&world, &request).await;
        assert!(head(&mut stream).await.starts_with("HTTP/1.1 200"));
        open.push(stream);
    }
    for path in ["events", "proxy/80/"] {
        let refused = world.get(&format!("/v1/sandboxes/{id}/{path}")).await;
        assert_eq!(refused.code(), "GENERAL::OVERLOADED", "{path}");
        assert_eq!(refused.headers["retry-after"], "1");
    }
    assert_eq!(world.get(&format!("/v1/sandboxes/{id}")).await.status, StatusCode::OK);
    open.pop();
    let again = async {
        loop {
            let mut stream = say(&world, &request).await;
            if head(&mut stream).await.starts_with("HTTP/1.1 200") {
                return;
            }
        }
    };
    in_time("a place that is free again", again).await;
}

#[tokio::test]
async fn hundreds_of_silent_streams_leave_the_rest_alone() {
    let world = World::new().await;
    let id = world.created().await;
    let request = format!("GET /v1/sandboxes/{id}/events HTTP/1.1\r\nhost: x\r\nopen-sandbox-api-key: {KEY}\r\n\r\n");
    let mut open = Vec::new();
    for _ in 0..400 {
        let mut stream = say(&world, &request).await;
        assert!(head(&mut stream).await.starts_with("HTTP/1.1 200"));
        open.push(stream);
    }
    assert_eq!(world.get(&format!("/v1/sandboxes/{id}")).await.status, StatusCode::OK);
    assert_eq!(world.create("claim").await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_for_a_place() {
    let world = World::with(|config| config.limits.connections = 1).await;
    let request = "GET /health HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut first = say(&world, request).await;
    assert!(head(&mut first).await.contains("200 OK"));
    let mut second = say(&world, request).await;
    // The first one's next answer comes; the second, which asked before it, has none by then.
    let mut body = vec![0; r#"{"status":"healthy"}"#.len()];
    first.read_exact(&mut body).await.unwrap();
    first.write_all(request.as_bytes()).await.unwrap();
    assert!(head(&mut first).await.contains("200 OK"));
    assert_eq!(second.try_read(&mut [0; 1]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    drop(first);
    assert!(head(&mut second).await.contains("200 OK"));
}
