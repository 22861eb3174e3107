//! A server over an API in memory, with a controller and an execd that do as a test tells them.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api_types::crd::{BatchSandbox, Pool};
use api_types::names::EXECD_PORT;
use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use local_api::env::{Hook, WriteInfo};
use serde_json::{Value, json};
use server::{ApiKeys, Config, Server};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The key of every server here.
pub const KEY: &str = "the-key";
/// The platform's secret of every server here.
pub const SECRET: [u8; 32] = [7; 32];
/// Longest time a test waits for anything.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Label that tells the controller here what to do with a sandbox.
pub const PLAY: &str = "play";

/// Counts writes by verb on BatchSandboxes.
#[derive(Default)]
pub struct Writes {
    pub creates: AtomicUsize,
    pub by_others: AtomicUsize,
    pub deletes: AtomicUsize,
}

#[async_trait::async_trait]
impl Hook for Writes {
    async fn before_write(&self, write: &WriteInfo) -> local_api::error::Result<()> {
        if write.plural == "batchsandboxes" {
            let counter = match (write.verb, &write.subresource) {
                ("create", _) => &self.creates,
                ("delete", _) => &self.deletes,
                _ => &self.by_others,
            };
            counter.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }
}

/// Everything a test needs; it ends with this.
pub struct World {
    pub client: Client,
    pub address: SocketAddr,
    pub writes: Arc<Writes>,
    /// Address that granted pods have.
    pub pod_ip: IpAddr,
    http: HttpClient<HttpConnector, Body>,
    serving: tokio::task::JoinHandle<()>,
    stop: CancellationToken,
    stop_controller: CancellationToken,
    _stop_controller: DropGuard,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// An answer, read.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|e| panic!("{e}: {:?}", self.bytes))
    }

    /// The code of an error answer, whose shape is checked.
    pub fn code(&self) -> String {
        let body = self.json();
        assert!(self.headers.contains_key("x-request-id"), "{body}");
        assert_eq!(body.as_object().unwrap().len(), 2, "{body}");
        assert!(!body["message"].as_str().unwrap().is_empty(), "{body}");
        let code = body["code"].as_str().unwrap();
        let known = api_types::ErrorCode::from_code(code).unwrap_or_else(|| panic!("{code} is not in the catalogue"));
        assert_eq!(known.status(), self.status.as_u16());
        code.to_owned()
    }

    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap().to_owned()
    }
}

impl World {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let writes = Arc::new(Writes::default());
        let options = local_api::Options { hook: writes.clone(), ..local_api::Options::default() };
        let api = local_api::Api::in_memory_with(options);
        let client = api.client("default");
        install_crds(&client).await;
        let pools: Api<Pool> = Api::namespaced(client.clone(), "default");
        for (name, max) in [("pool", 10), ("empty-pool", 0)] {
            pools.create(&PostParams::default(), &pool(name, max)).await.unwrap();
        }
        let stop_controller = CancellationToken::new();
        let pod_ip = own_loopback_address();
        tokio::spawn(controller(client.clone(), "default", pod_ip, stop_controller.clone()));

        let mut config = Config { api_keys: ApiKeys::new([KEY]), token_secret: SECRET, ..Config::default() };
        change(&mut config);
        let server = Server::new(client.clone(), config);
        assert!(server.ready(DEADLINE).await);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let until = stop.clone();
        let serving = tokio::spawn(async move { server.serve(listener, until).await.unwrap() });
        let http = HttpClient::builder(TokioExecutor::new()).build_http();
        Self {
            client,
            address,
            writes,
            pod_ip,
            http,
            serving,
            stop,
            stop_controller: stop_controller.clone(),
            _stop_controller: stop_controller.drop_guard(),
        }
    }

    /// Makes another namespace with a pool, and looks after its sandboxes as well.
    pub async fn looks_after(&self, namespace: &'static str) {
        let mut made = Namespace::default();
        made.metadata.name = Some(namespace.to_owned());
        Api::all(self.client.clone()).create(&PostParams::default(), &made).await.unwrap();
        let pools: Api<Pool> = Api::namespaced(self.client.clone(), namespace);
        pools.create(&PostParams::default(), &pool("pool", 10)).await.unwrap();
        tokio::spawn(controller(self.client.clone(), namespace, self.pod_ip, self.stop.clone()));
    }

    pub fn sandboxes(&self) -> Api<BatchSandbox> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Sends a request with the key.
    pub async fn send(&self, method: Method, path: &str, body: impl Into<Option<Value>>) -> Answer {
        self.send_as(KEY, method, path, body).await
    }

    /// Sends a request with another key.
    pub async fn send_as(&self, key: &str, method: Method, path: &str, body: impl Into<Option<Value>>) -> Answer {
        let body = body.into();
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        request = request.header("open-sandbox-api-key", key);
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map_or_else(Body::empty, |b| Body::from(b.to_string()));
        self.raw(request.body(body).unwrap()).await
    }

    /// Starts another server on the same Kubernetes, reached by this client, until the world ends.
    pub async fn another(&self, client: Client, change: impl FnOnce(&mut Config)) -> SocketAddr {
        let mut config = Config { api_keys: ApiKeys::new([KEY]), token_secret: SECRET, ..Config::default() };
        change(&mut config);
        let server = Server::new(client, config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let until = self.stop.clone();
        tokio::spawn(async move { server.serve(listener, until).await.unwrap() });
        address
    }

    /// Sends a request with the key to one of several servers.
    pub async fn ask(&self, server: SocketAddr, method: Method, path: &str, body: impl Into<Option<Value>>) -> Answer {
        let body = body.into();
        let request = Request::builder().method(method).uri(format!("http://{server}{path}"));
        let request = request.header("open-sandbox-api-key", KEY).header("content-type", "application/json");
        self.raw(request.body(body.map_or_else(Body::empty, |b| Body::from(b.to_string()))).unwrap()).await
    }

    /// Sends a request as it is, and reads the whole answer.
    pub async fn raw(&self, request: Request<Body>) -> Answer {
        tokio::time::timeout(DEADLINE, async {
            let (parts, body) = self.http.request(request).await.unwrap().into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            Answer { status: parts.status, headers: parts.headers, bytes }
        })
        .await
        .expect("an answer in time")
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, body).await
    }

    /// Creates a sandbox from the pool; `play` tells the controller what to do.
    pub async fn create(&self, play: &str) -> Answer {
        self.post("/v1/sandboxes", from_pool(play)).await
    }

    /// Creates a sandbox that must come about, and gives its id.
    pub async fn created(&self) -> String {
        let answer = self.create("claim").await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{:?}", answer.bytes);
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    /// Waits until no sandbox is left.
    pub async fn nothing_left(&self) {
        let api = self.sandboxes();
        tokio::time::timeout(DEADLINE, async {
            let mut events = std::pin::pin!(watcher(api.clone(), watcher::Config::default()).default_backoff());
            while !api.list(&Default::default()).await.unwrap().items.is_empty() {
                events.next().await;
            }
        })
        .await
        .expect("nothing is left in time");
    }

    /// Lets the controller do nothing any more.
    pub fn freeze(&self) {
        self.stop_controller.cancel();
    }

    /// Tells the servers to stop.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Shuts the server down, and waits until it is.
    pub async fn shut_down(&mut self) {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, &mut self.serving).await.expect("the server ends in time").unwrap();
    }

    /// Waits until the controller has written a status.
    pub async fn some_status(&self) {
        let api = self.sandboxes();
        tokio::time::timeout(DEADLINE, async {
            let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
            loop {
                if let Some(Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object))) = events.next().await
                    && object.status.is_some()
                {
                    return;
                }
            }
        })
        .await
        .expect("a status in time");
    }

    /// Serves a router at a free port of the granted pods' address.
    pub async fn pod_serves(&self, router: Router) -> u16 {
        let listener = TcpListener::bind((self.pod_ip, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, router).await });
        port
    }

    /// Serves a router at execd's port of that address; false, with a word, where all addresses' port is taken.
    pub async fn execd_serves(&self, router: Router) -> bool {
        match TcpListener::bind((self.pod_ip, EXECD_PORT)).await {
            Ok(listener) => {
                tokio::spawn(async move { axum::serve(listener, router).await });
                true
            }
            Err(error) => {
                println!("skipped: port {EXECD_PORT} of {} can't be had: {error}", self.pod_ip);
                false
            }
        }
    }
}

/// A create body as the published SDK sends it.
pub fn from_pool(play: &str) -> Value {
    json!({
        "image": {"uri": "python:3.11"}, "timeout": 600, "resourceLimits": {"cpu": "1", "memory": "2Gi"},
        "entrypoint": ["tail", "-f", "/dev/null"], "secureAccess": false, "env": {"AGENT_ID": "agent-1"},
        "metadata": {PLAY: play}, "extensions": {"poolRef": "pool"}
    })
}

/// What becomes of a request to Kubernetes.
pub enum Fate {
    Pass,
    Hang,
    Refuse(u16, &'static str),
}

/// A client some of whose requests have another fate.
pub fn tampered(
    client: Client,
    fate: impl Fn(&Request<kube::client::Body>) -> Fate + Clone + Send + 'static,
) -> Client {
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let (client, fate) = (client.clone(), fate(&request));
        async move {
            match fate {
                Fate::Pass => client.send(request).await,
                Fate::Hang => std::future::pending().await,
                Fate::Refuse(code, reason) => {
                    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
                        "reason": reason, "message": format!("the test says {reason}")});
                    let body = kube::client::Body::from(status.to_string().into_bytes());
                    Ok(http::Response::builder().status(code).body(body).unwrap())
                }
            }
        }
    });
    Client::new(service, "default")
}

fn pool(name: &str, max: i32) -> Pool {
    serde_json::from_value(json!({
        "apiVersion": "sandbox.opensandbox.io/v1alpha1", "kind": "Pool", "metadata": {"name": name},
        "spec": {
            "template": {"spec": {"containers": [{"name": "main", "image": "x"}]}},
            "capacitySpec": {"bufferMin": 0, "bufferMax": 1, "poolMin": 0, "poolMax": max}
        }
    }))
    .unwrap()
}

async fn install_crds(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in api_types::crd::all() {
        api.create(&PostParams::default(), &crd).await.unwrap();
        let name = crd.name_any();
        let established = await_condition(api.clone(), &name, conditions::is_crd_established());
        tokio::time::timeout(DEADLINE, established).await.expect("established in time").unwrap();
    }
}

/// An address of 127/8 that no other test has, so that the well-known ports are free on it.
fn own_loopback_address() -> IpAddr {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let process = std::process::id();
    let next = u8::try_from(NEXT.fetch_add(1, Ordering::SeqCst) % 250).unwrap_or_default();
    IpAddr::from([127, 128 + (process >> 8 & 0x7f) as u8, (process & 0xff) as u8, next + 1])
}

/// Grants, claims and fails as the label says, and lets go what is deleted.
async fn controller(client: Client, namespace: &'static str, pod_ip: IpAddr, stop: CancellationToken) {
    let api: Api<BatchSandbox> = Api::namespaced(client, namespace);
    let events = watcher(api.clone(), watcher::Config::default()).default_backoff();
    let mut events = std::pin::pin!(events);
    loop {
        let object = tokio::select! {
            () = stop.cancelled() => return,
            event = events.next() => match event {
                Some(Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object))) => object,
                Some(_) => continue,
                None => return,
            },
        };
        let name = object.name_any();
        if object.metadata.deletion_timestamp.is_some() {
            let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
            let _ = api.patch(&name, &PatchParams::default(), &patch).await;
        } else if object.status.is_none() {
            let play = object.labels().get(PLAY).map_or("claim", String::as_str);
            for status in script(play, &name, pod_ip) {
                let patch = Patch::Merge(json!({"status": status}));
                let _ = api.patch_status(&name, &PatchParams::default(), &patch).await;
            }
        }
    }
}

/// The statuses that the controller writes, one after another.
fn script(play: &str, name: &str, pod_ip: IpAddr) -> Vec<Value> {
    let grant = |state: &str| json!([{"index": 0, "pod": format!("pod-of-{name}"), "podUID": format!("uid-of-{name}"), "podIP": pod_ip, "epoch": 1, "state": state}]);
    let condition = |kind: &str, reason: &str, message: &str| json!([{"type": kind, "status": "True", "reason": reason, "message": message}]);
    let granted = json!({"replicas": 1, "allocated": 1, "ready": 0, "phase": "Pending", "grants": grant("Granted")});
    let claimed = json!({"replicas": 1, "allocated": 1, "ready": 1, "phase": "Succeed", "grants": grant("Claimed")});
    match play {
        "claim" => vec![granted, claimed],
        "hang" => vec![granted],
        "full" => vec![
            json!({"replicas": 0, "conditions": condition("PoolAllocationPending", "PoolFull", "pool pool is at its poolMax of 10")}),
        ],
        "fail" => vec![
            granted,
            json!({"replicas": 1, "phase": "Failed", "conditions": condition("PodFailed", "TASK_FAILED", "exit code 3: no such file")}),
        ],
        "forbid" => vec![
            json!({"replicas": 1, "phase": "Failed", "conditions": condition("PodFailed", "PodSecurity", "violates PodSecurity restricted")}),
        ],
        _ => Vec::new(),
    }
}
