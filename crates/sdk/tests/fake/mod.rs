//! A platform that answers as the published wire says, with faults on demand, and notes what it was asked.

#![allow(dead_code, missing_docs, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a fake that cannot go on fails its test")]

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Query, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, delete, get, post},
};
use futures::{StreamExt, stream};
use opensandbox::{Client, ConnectionConfig};
use serde_json::{Value, json};

pub const TOKEN: &str = "token-of-the-owner";
pub const KEY: &str = "key-of-the-server";

/// An answer instead of the right one: status, headers, body.
pub type Fault = (u16, Vec<(&'static str, String)>, String);

/// What the next answers are to be.
#[derive(Default)]
pub struct Script {
    /// Whether a create says where execd is.
    pub execd_in_create: bool,
    /// Answers of a route, by `METHOD /path`, before it works.
    pub faults: BTreeMap<String, Vec<Fault>>,
    /// The pieces of the next command's stream.
    pub stream: Vec<Piece>,
    /// Content of files.
    pub files: BTreeMap<String, Bytes>,
    /// `METHOD /path` of every request, in order.
    pub seen: Vec<String>,
    /// Bodies of JSON requests, by `METHOD /path`.
    pub bodies: BTreeMap<String, Value>,
    /// Multipart bodies of uploads.
    pub uploads: Vec<(HeaderMap, Bytes)>,
    /// Headers of the last request, by `METHOD /path`.
    pub headers: BTreeMap<String, HeaderMap>,
}

#[derive(Clone)]
pub enum Piece {
    Bytes(Vec<u8>),
    /// The connection breaks when the test says so.
    Cut,
    /// Nothing more comes.
    Silence,
}

#[derive(Clone)]
pub struct Fake {
    pub script: Arc<Mutex<Script>>,
    /// Lets [`Piece::Cut`] happen.
    pub cut: Arc<tokio::sync::Notify>,
    pub address: std::net::SocketAddr,
}

impl Fake {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self { script: Arc::default(), cut: Arc::default(), address: listener.local_addr().unwrap() };
        let routes = Router::new()
            .route("/v1/sandboxes", post(create).get(list))
            .route("/v1/sandboxes/{id}", get(info).delete(|| async { StatusCode::NO_CONTENT }))
            .route("/v1/sandboxes/{id}/renew-expiration", post(|Json(body): Json<Value>| async { Json(body) }))
            .route("/v1/sandboxes/{id}/explain", get(explain))
            .route("/v1/sandboxes/{id}/events", get(states))
            .route("/v1/sandboxes/{id}/diagnostics/{kind}", get(diagnosis))
            .route("/v1/sandboxes/{id}/metadata", axum::routing::patch(info))
            .route("/v1/sandboxes/{id}/endpoints/{port}", get(endpoint))
            .route("/v1/pools", get(pools))
            .route("/execd/ping", get(|| async { "" }))
            .route("/execd/command", post(command).delete(|| async { "" }))
            .route("/execd/command/status/{id}", get(status))
            .route("/execd/command/{id}/logs", get(logs))
            .route("/execd/metrics", get(metrics))
            .route("/execd/files/download", get(download))
            .route("/execd/files/upload", post(upload))
            .route("/execd/files", delete(|| async { "" }))
            .route("/execd/files/replace", post(replace))
            .fallback(any(|| async {
                (StatusCode::NOT_FOUND, Json(json!({"code": "ROUTE_NOT_FOUND", "message": "no such route"})))
            }))
            .layer(middleware::from_fn_with_state(fake.clone(), note))
            .with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        fake
    }

    pub fn script<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        change(&mut self.script.lock().unwrap())
    }

    pub fn config(&self) -> ConnectionConfig {
        ConnectionConfig::new(self.address.to_string()).api_key(KEY).request_timeout(Duration::from_secs(20))
    }

    pub fn client(&self) -> Client {
        Client::new(self.config()).unwrap()
    }

    pub fn fail(&self, route: &str, status: u16, headers: &[(&'static str, &str)], body: &str) {
        let headers = headers.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
        self.script(|s| s.faults.entry(route.to_owned()).or_default().push((status, headers, body.to_owned())));
    }

    pub fn seen(&self) -> Vec<String> {
        self.script(|s| s.seen.clone())
    }

    /// `bytes` as the pieces of the next command's stream.
    pub fn stream(&self, pieces: impl IntoIterator<Item = Piece>) {
        self.script(|s| s.stream = pieces.into_iter().collect());
    }

    fn execd(&self) -> Value {
        json!({"endpoint": format!("{}/execd", self.address), "headers": {"X-EXECD-ACCESS-TOKEN": TOKEN}})
    }
}

/// Events with their framing.
pub fn events(events: &[Value]) -> Piece {
    Piece::Bytes(events.iter().flat_map(|event| format!("{event}\n\n").into_bytes()).collect())
}

pub fn hello() -> Piece {
    events(&[
        json!({"type": "init", "timestamp": 1, "text": "e1"}),
        json!({"type": "ping", "timestamp": 1, "text": "pong"}),
        json!({"type": "stdout", "timestamp": 2, "text": "hello"}),
        json!({"type": "execution_complete", "timestamp": 3, "execution_time": 2}),
    ])
}

async fn note(State(fake): State<Fake>, request: Request, next: Next) -> Response {
    let route = format!("{} {}", request.method(), request.uri().path());
    let headers = request.headers().clone();
    let fault = fake.script(|s| {
        s.seen.push(route.clone());
        s.headers.insert(route.clone(), headers.clone());
        s.faults.get_mut(&route).filter(|faults| !faults.is_empty()).map(|faults| faults.remove(0))
    });
    if let Some((status, headers, body)) = fault {
        let mut response = (StatusCode::from_u16(status).unwrap(), body).into_response();
        for (name, value) in headers {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        return response;
    }
    let allowed = if route.contains("/execd/") {
        headers.get("x-execd-access-token").is_some_and(|t| t == TOKEN)
    } else {
        headers.get("open-sandbox-api-key").is_some_and(|k| k == KEY)
    };
    if !allowed {
        return (StatusCode::UNAUTHORIZED, Json(json!({"code": "INVALID_API_KEY", "message": "wrong key"})))
            .into_response();
    }
    next.run(request).await
}

fn sandbox(id: &str) -> Value {
    json!({"id": id, "status": {"state": "Running"}, "createdAt": "2026-01-01T00:00:00Z", "entrypoint": ["sleep"],
        "allocation": {"mode": "pool", "poolRef": "agent-pool", "state": "allocated"}})
}

async fn create(State(fake): State<Fake>, Json(body): Json<Value>) -> Response {
    let (with_execd, execd) = (fake.script(|s| s.execd_in_create), fake.execd());
    fake.script(|s| s.bodies.insert("POST /v1/sandboxes".to_owned(), body));
    let mut answer =
        json!({"id": "s1", "status": {"state": "Running"}, "createdAt": "2026-01-01T00:00:00Z", "entrypoint": []});
    if with_execd {
        answer["execd"] = execd;
        answer["warnings"] = json!(["the image is the pool's"]);
    }
    (StatusCode::ACCEPTED, Json(answer)).into_response()
}

async fn list(Query(query): Query<BTreeMap<String, String>>) -> Json<Value> {
    let page: usize = query.get("page").map_or(1, |p| p.parse().unwrap());
    let items: Vec<_> = (0..2).map(|n| sandbox(&format!("s{}", 2 * page + n))).collect();
    Json(
        json!({"items": items, "pagination": {"page": page, "pageSize": 2, "totalItems": 6, "totalPages": 3, "hasNextPage": page < 3}}),
    )
}

async fn info(Path(id): Path<String>) -> Json<Value> {
    Json(sandbox(&id))
}

async fn explain(Path(id): Path<String>) -> Json<Value> {
    Json(json!({
        "id": id, "status": {"state": "Pending", "reason": "POOL_CAPACITY_EXHAUSTED", "message": "no pod is free"},
        "source": "pool", "from": "agent-pool",
        "timeline": [
            {"name": "accepted", "at": "2026-01-01T00:00:00Z", "wholeSecond": true},
            {"name": "queued", "at": "2026-01-01T00:00:00.25Z", "detail": "seen by the controller"},
            {"name": "granted", "at": "2026-01-01T00:00:00.2575Z", "tookMs": 7.5, "detail": "pod p-1"}
        ],
        "waiting": {"for": "PoolFull", "why": "idle 0, allocated 2, poolMax 2", "action": "raise poolMax", "since": "2026-01-01T00:00:01Z"},
        "pool": {"name": "agent-pool", "total": 2, "allocated": 2, "available": 0, "max": 2},
        "events": [{"at": "2026-01-01T00:00:01Z", "type": "Warning", "object": "BatchSandbox/s1", "reason": "PoolFull", "message": "no pod is free", "count": 3}]
    }))
}

/// Two states, and between them an end that was not the sandbox's; a resumed stream has the second.
async fn states(Path(id): Path<String>, headers: HeaderMap) -> Response {
    let mut told = sandbox(&id);
    let text = if headers.contains_key("last-event-id") {
        told["status"]["state"] = json!("Stopping");
        format!("event: state\nid: 2\ndata: {told}\n\nevent: gone\ndata: {{}}\n\n")
    } else {
        format!("event: state\nid: 1\ndata: {told}\n\n: ping\n\n")
    };
    ([(header::CONTENT_TYPE, "text/event-stream")], text).into_response()
}

async fn diagnosis(
    Path((id, kind)): Path<(String, String)>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Json<Value> {
    let content = format!("{kind} of {id}\n");
    Json(json!({"sandboxId": id, "kind": kind, "scope": query["scope"], "delivery": "inline",
        "contentType": "text/plain; charset=utf-8", "content": content, "contentLength": content.len(), "truncated": false}))
}

async fn endpoint(State(fake): State<Fake>, Path((_, port)): Path<(String, u16)>) -> Json<Value> {
    if port == 44772 { Json(fake.execd()) } else { Json(json!({"endpoint": format!("10.0.0.1:{port}")})) }
}

async fn pools() -> Json<Value> {
    Json(
        json!({"items": [{"name": "agent-pool", "capacitySpec": {"bufferMin": 10, "bufferMax": 50, "poolMin": 10, "poolMax": 200},
        "status": {"total": 30, "allocated": 2, "available": 28, "revision": "abc"}}]}),
    )
}

async fn command(State(fake): State<Fake>, Json(body): Json<Value>) -> Response {
    let pieces = fake.script(|s| {
        s.bodies.insert("POST /execd/command".to_owned(), body);
        std::mem::take(&mut s.stream)
    });
    let body = stream::iter(pieces).flat_map(move |piece| match piece {
        Piece::Bytes(bytes) => stream::iter(vec![Ok(Bytes::from(bytes))]).boxed(),
        Piece::Cut => {
            let cut = fake.cut.clone();
            stream::once(async move {
                cut.notified().await;
                Err(std::io::Error::other("cut"))
            })
            .boxed()
        }
        Piece::Silence => stream::pending().boxed(),
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(body)).into_response()
}

async fn status(Path(id): Path<String>) -> Json<Value> {
    Json(
        json!({"id": id, "content": "make", "running": false, "exit_code": 2, "error": "exit status 2", "started_at": "2026-01-01T00:00:00.5+02:00"}),
    )
}

async fn logs(Query(query): Query<BTreeMap<String, u64>>) -> Response {
    let from = query["cursor"];
    ([("EXECD-COMMANDS-TAIL-CURSOR", "10")], "0123456789"[usize::try_from(from).unwrap()..].to_owned()).into_response()
}

async fn metrics() -> Json<Value> {
    Json(json!({"cpu_count": 2.0, "cpu_used_pct": 12.5, "mem_total_mib": 256.0, "mem_used_mib": 17.25, "timestamp": 1}))
}

async fn download(
    State(fake): State<Fake>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let Some(content) = fake.script(|s| s.files.get(&query["path"]).cloned()) else {
        return (
            StatusCode::NOT_FOUND,
            Json(json!({"code": "FILE_NOT_FOUND", "message": format!("{} does not exist", query["path"])})),
        )
            .into_response();
    };
    let Some(range) = headers.get(header::RANGE) else { return content.into_response() };
    let (from, to) = range.to_str().unwrap().strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let from: usize = from.parse().unwrap();
    if from >= content.len() {
        return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
    }
    let to = to.parse().map_or(content.len(), |to: usize| content.len().min(to + 1));
    (StatusCode::PARTIAL_CONTENT, content.slice(from..to)).into_response()
}

async fn upload(
    State(fake): State<Fake>,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<StatusCode, Infallible> {
    let Ok(body) = body else { return Ok(StatusCode::BAD_REQUEST) };
    fake.script(|s| s.uploads.push((headers, body)));
    Ok(StatusCode::OK)
}

async fn replace(Json(body): Json<Value>) -> Json<Value> {
    let path = body.as_object().unwrap().keys().next().unwrap().clone();
    Json(json!({path: {"replacedCount": 3}}))
}
