//! Tenants: each sees its own, within its quota and its rate, and a service or a file says whose a key is.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod common;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use api_types::crd::BatchSandbox;
use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse as _;
use axum::routing::get;
use common::{Answer, DEADLINE, World, from_pool};
use http::{HeaderMap, Method, Request, StatusCode};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use server::tenants::{Provider, ProviderSettings, Tenants, TenantsFile};
use server::{Config, Rate, Server};
use tokio::net::TcpListener;

/// Two tenants; red's namespace is the one that every world has.
const FILE: &str = r#"
[[tenants]]
name = "red"
namespace = "default"
api_keys = ["red-key"]

[[tenants]]
name = "blue"
namespace = "blue"
api_keys = ["blue-key"]
quota = { sandboxes = 2 }
"#;

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tenants.toml");
    std::fs::write(&path, text).unwrap();
    (directory, path)
}

/// A world with these tenants, in which both namespaces are looked after.
async fn world(text: &str, change: impl FnOnce(&mut Config)) -> World {
    let (_directory, path) = file(text);
    let tenants = TenantsFile::read(&path).unwrap();
    let world = World::with(|config| {
        config.tenants = Some(Tenants::file(tenants));
        change(config);
    })
    .await;
    world.looks_after("blue").await;
    world
}

fn id(answer: &Answer) -> String {
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{:?}", answer.bytes);
    answer.json()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn each_sees_and_ends_its_own() {
    let world = world(FILE, |config| config.allowed_host_paths = vec!["/data".into()]).await;
    let mine = id(&world.send_as("red-key", Method::POST, "/v1/sandboxes", from_pool("claim")).await);
    let theirs = id(&world.send_as("blue-key", Method::POST, "/v1/sandboxes", from_pool("claim")).await);
    let blue: Api<BatchSandbox> = Api::namespaced(world.client.clone(), "blue");
    assert_eq!(blue.get(&theirs).await.unwrap().labels()["opensandbox.io/tenant"], "blue");
    assert_eq!(world.sandboxes().get(&mine).await.unwrap().labels()["opensandbox.io/tenant"], "red");

    for (key, own, other) in [("red-key", &mine, &theirs), ("blue-key", &theirs, &mine)] {
        let list = world.send_as(key, Method::GET, "/v1/sandboxes", None).await.json();
        assert_eq!(list["pagination"]["totalItems"], 1);
        assert_eq!(list["items"][0]["id"], **own);
        for (method, path, body) in [
            (Method::GET, "", None),
            (Method::DELETE, "", None),
            (Method::PATCH, "/metadata", Some(json!({"a": "b"}))),
            (Method::POST, "/renew-expiration", Some(json!({"expiresAt": "2099-01-01T00:00:00Z"}))),
            (Method::GET, "/endpoints/44772", None),
            (Method::GET, "/explain", None),
            (Method::GET, "/events", None),
            (Method::GET, "/diagnostics/logs", None),
            (Method::GET, "/proxy/80/", None),
        ] {
            let answer = world.send_as(key, method.clone(), &format!("/v1/sandboxes/{other}{path}"), body).await;
            assert_eq!(answer.code(), "KUBERNETES::SANDBOX_NOT_FOUND", "{method} {path}");
        }
    }
    // One of a tenant in the same namespace is another's as well.
    let mut labels = blue.get(&theirs).await.unwrap();
    labels.metadata.resource_version = None;
    labels.metadata.uid = None;
    labels.metadata.namespace = Some("default".to_owned());
    world.sandboxes().create(&Default::default(), &labels).await.unwrap();
    let answer = world.send_as("red-key", Method::GET, &format!("/v1/sandboxes/{theirs}"), None).await;
    assert_eq!(answer.code(), "KUBERNETES::SANDBOX_NOT_FOUND");

    // Pools are looked at by all and changed by none whose key is not an admin's.
    assert_eq!(world.send_as("blue-key", Method::GET, "/v1/pools/pool", None).await.status, StatusCode::OK);
    let deleted = world.send_as("blue-key", Method::DELETE, "/v1/pools/pool", None).await;
    assert_eq!(deleted.code(), "INSUFFICIENT_SCOPE");
    assert_eq!(world.send_as("no-key", Method::GET, "/v1/pools", None).await.code(), "INVALID_API_KEY");
    // Keys that open a server without tenants open nothing here.
    assert_eq!(world.get("/v1/pools").await.code(), "INVALID_API_KEY");

    let host = json!({
        "image": {"uri": "x"}, "entrypoint": ["x"],
        "volumes": [{"name": "v", "mountPath": "/m", "host": {"path": "/data"}}]
    });
    let refused = world.send_as("red-key", Method::POST, "/v1/sandboxes", host).await;
    assert!(refused.message().starts_with("volumes[0].host.path: "), "{}", refused.message());
}

#[tokio::test]
async fn the_same_idempotency_key_is_another_sandbox_for_another_tenant() {
    let world = world(FILE, |_| {}).await;
    let create = async |key: &str| {
        let request = Request::builder().method(Method::POST).uri(format!("http://{}/v1/sandboxes", world.address));
        let request = request.header("open-sandbox-api-key", key).header("idempotency-key", "same");
        id(&world.raw(request.body(Body::from(from_pool("claim").to_string())).unwrap()).await)
    };
    let (red, blue) = (create("red-key").await, create("blue-key").await);
    assert_ne!(red, blue);
    assert_eq!(red, create("red-key").await);
    // The quota of two is used up by then, and the same sandbox is no further one.
    world.send_as("blue-key", Method::POST, "/v1/sandboxes", from_pool("claim")).await;
    assert_eq!(blue, create("blue-key").await);
}

#[tokio::test]
async fn a_port_token_needs_no_key_and_finds_its_tenant() {
    let world = world(FILE, |_| {}).await;
    let port = world.pod_serves(Router::new().route("/", get(|| async { "inside" }))).await;
    let theirs = id(&world.send_as("blue-key", Method::POST, "/v1/sandboxes", from_pool("claim")).await);
    let path = format!("/v1/sandboxes/{theirs}/endpoints/{port}?use_server_proxy=true");
    let endpoint = world.send_as("blue-key", Method::GET, &path, None).await.json();
    let token = endpoint["headers"]["OpenSandbox-Secure-Access"].as_str().unwrap().to_owned();
    let open = async |server: std::net::SocketAddr, token: &str| {
        let uri = format!("http://{server}/v1/sandboxes/{theirs}/proxy/{port}/");
        let request = Request::builder().uri(uri).header("opensandbox-secure-access", token);
        world.raw(request.body(Body::empty()).unwrap()).await
    };
    assert_eq!(open(world.address, &token).await.bytes, "inside");
    assert_eq!(open(world.address, "wrong").await.code(), "MISSING_OR_INVALID_SECURE_ACCESS");
    // A replica that has never met the tenant finds the sandbox in Kubernetes.
    let settings = settings("http://127.0.0.1:1/");
    let provider = Provider::new(settings).unwrap();
    let change = |config: &mut Config| config.tenants = Some(Tenants::Http(Arc::new(provider)));
    let another = world.another(world.client.clone(), change).await;
    assert_eq!(open(another, &token).await.bytes, "inside");
    assert_eq!(open(another, "wrong").await.code(), "MISSING_OR_INVALID_SECURE_ACCESS");
}

#[tokio::test]
async fn a_quota_holds_also_for_creates_at_once() {
    let world = world(FILE, |_| {}).await;
    let create = || world.send_as("blue-key", Method::POST, "/v1/sandboxes", from_pool("claim"));
    let answers = futures::future::join_all((0..6).map(|_| create())).await;
    let made: Vec<_> = answers.iter().filter(|a| a.status == StatusCode::ACCEPTED).collect();
    assert_eq!(made.len(), 2);
    for refused in answers.iter().filter(|a| a.status != StatusCode::ACCEPTED) {
        assert_eq!(refused.code(), "KUBERNETES::QUOTA_EXCEEDED");
        assert!(refused.message().contains("tenant blue") && refused.message().contains("of 2"));
    }
    let path = format!("/v1/sandboxes/{}", id(made[0]));
    assert_eq!(world.send_as("blue-key", Method::DELETE, &path, None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(create().await.status, StatusCode::ACCEPTED);
    // The other tenant has no bound.
    for _ in 0..3 {
        id(&world.send_as("red-key", Method::POST, "/v1/sandboxes", from_pool("claim")).await);
    }
}

#[tokio::test]
async fn a_rate_is_a_callers_own_and_the_proxy_is_not_held_to_it() {
    let rate = Rate { every: Duration::from_secs(3600), burst: NonZeroU32::new(3).unwrap() };
    let world = world(FILE, |config| config.limits.rate = Some(rate)).await;
    let ask = |key: &'static str| world.send_as(key, Method::GET, "/v1/sandboxes", None);
    for _ in 0..3 {
        assert_eq!(ask("red-key").await.status, StatusCode::OK);
    }
    let refused = ask("red-key").await;
    assert_eq!(refused.code(), "GENERAL::RATE_LIMITED");
    let after: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=3600).contains(&after), "{after}");
    assert_eq!(ask("blue-key").await.status, StatusCode::OK);
    for _ in 0..4 {
        let answer = world.send_as("red-key", Method::GET, "/v1/sandboxes/x/proxy/80/", None).await;
        assert_eq!(answer.code(), "KUBERNETES::SANDBOX_NOT_FOUND");
    }
    // Public paths ask nobody's name.
    for _ in 0..5 {
        let request = Request::builder().uri(format!("http://{}/health", world.address));
        assert_eq!(world.raw(request.body(Body::empty()).unwrap()).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_file_that_changes_is_taken_and_a_broken_one_is_not() {
    let (directory, path) = file(FILE);
    let plain = World::new().await;
    let tenants = Tenants::file(TenantsFile::read(&path).unwrap());
    let server = Server::new(plain.client.clone(), Config { tenants: Some(tenants), ..Config::default() });
    server.follow_tenants(path.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    tokio::spawn(async move { server.serve(listener, stop).await });
    let status = async |key: &str| {
        let request = Request::builder().uri(format!("http://{address}/v1/pools")).header("open-sandbox-api-key", key);
        plain.raw(request.body(Body::empty()).unwrap()).await.status
    };
    let until = async |key: &str, wanted: StatusCode| {
        let asking = async {
            while status(key).await != wanted {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, asking).await.unwrap_or_else(|_| panic!("{key} is not {wanted} in time"));
    };
    until("red-key", StatusCode::OK).await;
    std::fs::write(&path, FILE.replace("red-key", "new-key")).unwrap();
    until("new-key", StatusCode::OK).await;
    assert_eq!(status("red-key").await, StatusCode::UNAUTHORIZED);
    std::fs::write(&path, "[[tenants]]").unwrap();
    // What comes after the broken one is taken, and so the broken one was looked at and left.
    assert_eq!(status("new-key").await, StatusCode::OK);
    std::fs::write(directory.path().join("next"), FILE.replace("red-key", "newer-key")).unwrap();
    std::fs::rename(directory.path().join("next"), &path).unwrap();
    until("newer-key", StatusCode::OK).await;
}

fn settings(endpoint: &str) -> ProviderSettings {
    // Nothing else of this process has chosen TLS, or it has chosen the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    ProviderSettings {
        endpoint: endpoint.to_owned(),
        auth: Some(("x-service".to_owned(), "ours".to_owned())),
        timeout: Duration::from_secs(5),
        max_stale: Duration::from_secs(300),
    }
}

#[tokio::test]
async fn a_service_says_whose_a_key_is_once_for_all_who_ask_at_once() {
    let (asked, status) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU16::new(200)));
    let (count, say) = (asked.clone(), status.clone());
    let whose = get(move |headers: HeaderMap| async move {
        count.fetch_add(1, Ordering::SeqCst);
        assert_eq!(headers["x-service"], "ours");
        let status = StatusCode::from_u16(say.load(Ordering::SeqCst)).unwrap();
        let ttl = match headers["open-sandbox-api-key"].to_str().unwrap() {
            "blue-key" => 3600,
            "short-key" => 0,
            _ => return StatusCode::UNAUTHORIZED.into_response(),
        };
        (status, axum::Json(json!({"namespace": "blue", "ttl": ttl}))).into_response()
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/whose", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/whose", whose)).await });
    let provider = Provider::new(settings(&endpoint)).unwrap();
    let world = World::with(|config| config.tenants = Some(Tenants::Http(Arc::new(provider)))).await;
    world.looks_after("blue").await;

    let ask = |key: &'static str| world.send_as(key, Method::GET, "/v1/pools", None);
    let answers = futures::future::join_all((0..20).map(|_| ask("blue-key"))).await;
    assert!(answers.iter().all(|a| a.status == StatusCode::OK));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(ask("stranger").await.code(), "INVALID_API_KEY");
    assert_eq!(ask("short-key").await.status, StatusCode::OK);
    id(&world.send_as("blue-key", Method::POST, "/v1/sandboxes", from_pool("claim")).await);

    // While the service is away, what it said holds, and of others nobody knows.
    status.store(500, Ordering::SeqCst);
    assert_eq!(ask("short-key").await.status, StatusCode::OK);
    let provider = Provider::new(settings(&endpoint)).unwrap();
    let fresh = |config: &mut Config| config.tenants = Some(Tenants::Http(Arc::new(provider)));
    let another = world.another(world.client.clone(), fresh).await;
    let request =
        Request::builder().uri(format!("http://{another}/v1/pools")).header("open-sandbox-api-key", "blue-key");
    let away = world.raw(request.body(Body::empty()).unwrap()).await;
    assert_eq!(away.code(), "TENANT_PROVIDER_UNAVAILABLE");
    assert!(away.headers.contains_key("retry-after") && away.message().contains("500"), "{}", away.message());
}
