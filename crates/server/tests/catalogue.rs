//! Every code of the error catalogue: a test provokes it, or it says who answers it instead.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod common;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use api_types::ErrorCode;
use axum::Router;
use axum::body::Body;
use axum::routing::get;
use common::{Answer, DEADLINE, Fate, KEY, World, from_pool, tampered};
use http::{Method, Request};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use server::tenants::{Provider, ProviderSettings, Tenants};
use server::{ApiKeys, Config, Rate, Scope};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const DAEMONS: &str = "the daemons in a pod answer it; crates/execd/tests and crates/task-executor/tests provoke it";
const EXECD: &str = "execd answers it; crates/execd/tests provokes it";
const EXECUTOR: &str = "task-executor answers it; crates/task-executor/tests provokes it";
const FAULT: &str = "only a fault of the server itself, such as a panic, is answered with it";

/// An answer with the code, or why there is none here.
type Provoked = Result<Answer, &'static str>;

async fn provoke(code: ErrorCode) -> Provoked {
    use ErrorCode as C;
    match code {
        C::MissingApiKey | C::InvalidApiKey | C::InvalidSecureAccess | C::InsufficientScope | C::RateLimited => {
            Ok(of_the_key(code).await)
        }
        C::TenantProviderUnavailable => Ok(of_tenants().await),
        C::RouteNotFound | C::MethodNotAllowed | C::BodyTooLarge => Ok(of_the_request(code).await),
        C::InvalidRequest
        | C::InvalidMetadataLabel
        | C::InvalidMetadataFormat
        | C::InvalidEntrypoint
        | C::InvalidPort
        | C::NotSupported
        | C::DiagnosticsScopeUnsupported
        | C::SandboxNotFound
        | C::PoolNotFound
        | C::PoolAlreadyExists
        | C::PoolCapacityExhausted => Ok(of_what_is_asked(code).await),
        C::PodReadyTimeout | C::PodFailed | C::PodForbidden | C::SandboxGone | C::PodIpNotAvailable => {
            Ok(of_the_sandbox(code).await)
        }
        C::InvalidExpiration | C::NoExpiration | C::InvalidState | C::IdempotencyConflict => {
            Ok(of_its_state(code).await)
        }
        C::Overloaded | C::RequestTimeout | C::QuotaExceeded | C::KubernetesApiError | C::PoolApiError => {
            Ok(of_kubernetes(code).await)
        }
        C::BackendConnectionFailed | C::BackendTimeout | C::BackendResponseFailed => Ok(of_the_proxy(code).await),
        C::Internal => Err(FAULT),
        C::NotClaimed
        | C::ClaimedByAnother
        | C::StaleClaim
        | C::WrongPod
        | C::BadSignature
        | C::BadAccessToken
        | C::InvalidRequestBody => Err(DAEMONS),
        C::MissingQuery
        | C::RuntimeError
        | C::InvalidFile
        | C::InvalidFileContent
        | C::InvalidFileMetadata
        | C::FileNotFound
        | C::CommandNotFound
        | C::ContextNotFound
        | C::InvalidRange
        | C::DiskFull
        | C::ExecdNotSupported
        | C::SessionBusy
        | C::TooManySessions
        | C::AlreadyConnected
        | C::StdinClosed
        | C::TooManyExecutions => Err(EXECD),
        C::InvalidTask
        | C::TaskNotFound
        | C::TaskExists
        | C::TooManyTasks
        | C::TaskKindUnsupported
        | C::NoSandboxContainer => Err(EXECUTOR),
        other => panic!("{other:?} is in the catalogue, and nothing here provokes it"),
    }
}

#[tokio::test]
async fn every_code_is_provoked_or_somebody_elses() {
    for code in ErrorCode::ALL {
        match provoke(*code).await {
            Ok(answer) => {
                assert_eq!(answer.code(), code.as_str(), "{}", answer.message());
                assert!(answer.message().len() > 10, "{}", answer.message());
            }
            Err(reason) => assert!(reason.contains("answer")),
        }
    }
}

async fn of_the_key(code: ErrorCode) -> Answer {
    let once = Rate { every: Duration::from_secs(3600), burst: NonZeroU32::MIN };
    let world = World::with(|config| {
        let reader = ApiKeys::one("reader", Scope::Read).unwrap();
        config.api_keys = config.api_keys.clone().and(reader);
        config.limits.rate = Some(once);
    })
    .await;
    match code {
        ErrorCode::MissingApiKey => {
            let request = Request::builder().uri(format!("http://{}/v1/pools", world.address));
            world.raw(request.body(Body::empty()).unwrap()).await
        }
        ErrorCode::InvalidApiKey => world.send_as("other", Method::GET, "/v1/pools", None).await,
        ErrorCode::InsufficientScope => world.send_as("reader", Method::DELETE, "/v1/pools/pool", None).await,
        ErrorCode::InvalidSecureAccess => {
            let request = Request::builder()
                .uri(format!("http://{}/v1/sandboxes/x/proxy/80/", world.address))
                .header("opensandbox-secure-access", "guessed");
            world.raw(request.body(Body::empty()).unwrap()).await
        }
        _ => {
            world.get("/v1/pools").await;
            world.get("/v1/pools").await
        }
    }
}

async fn of_tenants() -> Answer {
    // Nothing else of this process has chosen TLS, or it has chosen the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let endpoint = "http://127.0.0.1:1/".to_owned();
    let (timeout, max_stale) = (Duration::from_secs(5), Duration::ZERO);
    let provider = Provider::new(ProviderSettings { endpoint, auth: None, timeout, max_stale }).unwrap();
    let world = World::with(|config| config.tenants = Some(Tenants::Http(Arc::new(provider)))).await;
    world.get("/v1/pools").await
}

async fn of_the_request(code: ErrorCode) -> Answer {
    let world = World::new().await;
    match code {
        ErrorCode::RouteNotFound => world.get("/v1/nothing").await,
        ErrorCode::MethodNotAllowed => world.send(Method::PUT, "/v1/sandboxes", None).await,
        _ => world.post("/v1/sandboxes", json!("x".repeat(2 << 20))).await,
    }
}

/// A create from the pool with one member changed.
async fn create(world: &World, member: &str, value: Value) -> Answer {
    let mut body = from_pool("claim");
    body[member] = value;
    world.post("/v1/sandboxes", body).await
}

async fn of_what_is_asked(code: ErrorCode) -> Answer {
    let world = World::new().await;
    let pool = |name: &str| json!({"poolRef": name});
    match code {
        ErrorCode::InvalidRequest => create(&world, "timeout", json!("soon")).await,
        ErrorCode::InvalidMetadataLabel => create(&world, "metadata", json!({"a b": "c"})).await,
        ErrorCode::InvalidMetadataFormat => world.get("/v1/sandboxes?metadata=a").await,
        ErrorCode::InvalidEntrypoint => create(&world, "entrypoint", json!([""])).await,
        ErrorCode::InvalidPort => world.get("/v1/sandboxes/x/endpoints/0").await,
        ErrorCode::NotSupported => world.post("/v1/sandboxes/x/pause", json!({})).await,
        ErrorCode::DiagnosticsScopeUnsupported => world.get("/v1/sandboxes/x/diagnostics/logs?scope=all-of-it").await,
        ErrorCode::SandboxNotFound => world.get("/v1/sandboxes/x").await,
        ErrorCode::PoolNotFound => create(&world, "extensions", pool("none")).await,
        ErrorCode::PoolCapacityExhausted => create(&world, "extensions", pool("empty-pool")).await,
        _ => world.post("/v1/pools", a_pool("pool")).await,
    }
}

fn a_pool(name: &str) -> Value {
    json!({
        "name": name, "template": {"spec": {"containers": [{"name": "main", "image": "x"}]}},
        "capacitySpec": {"bufferMax": 1, "bufferMin": 0, "poolMax": 1, "poolMin": 0}
    })
}

async fn of_the_sandbox(code: ErrorCode) -> Answer {
    let world = World::with(|config| config.limits.acquisition_timeout = Duration::from_secs(1)).await;
    let waiting = async |play: &str| {
        let answer = world.post("/v1/sandboxes?wait=0", from_pool(play)).await;
        format!("/v1/sandboxes/{}/endpoints/80", answer.json()["id"].as_str().unwrap())
    };
    match code {
        ErrorCode::PodFailed => world.create("fail").await,
        ErrorCode::PodForbidden => world.create("forbid").await,
        ErrorCode::PodReadyTimeout => world.create("ignore").await,
        ErrorCode::PodIpNotAvailable => world.get(&waiting("ignore").await).await,
        _ => {
            let id = world.created().await;
            let failed = Patch::Merge(json!({"status": {"phase": "Failed", "grants": []}}));
            world.sandboxes().patch_status(&id, &PatchParams::default(), &failed).await.unwrap();
            let told = async {
                loop {
                    let answer = world.get(&format!("/v1/sandboxes/{id}/endpoints/80")).await;
                    if !answer.status.is_success() {
                        return answer;
                    }
                }
            };
            tokio::time::timeout(DEADLINE, told).await.expect("the failure is seen in time")
        }
    }
}

async fn of_its_state(code: ErrorCode) -> Answer {
    let world = World::new().await;
    if code == ErrorCode::IdempotencyConflict {
        let send = async |body: Value| {
            let request = Request::builder().method(Method::POST).uri(format!("http://{}/v1/sandboxes", world.address));
            let request = request.header("open-sandbox-api-key", KEY).header("idempotency-key", "same");
            world.raw(request.body(Body::from(body.to_string())).unwrap()).await
        };
        send(from_pool("claim")).await;
        let mut other = from_pool("claim");
        other["timeout"] = json!(700);
        return send(other).await;
    }
    let timeout = if code == ErrorCode::NoExpiration { Value::Null } else { json!(600) };
    let made = create(&world, "timeout", timeout).await.json();
    let id = made["id"].as_str().unwrap();
    let end = if code == ErrorCode::InvalidExpiration { "2001-01-01T00:00:00Z" } else { "2099-01-01T00:00:00Z" };
    if code == ErrorCode::InvalidState {
        // Its end takes as long as somebody holds it.
        let held = Patch::Merge(json!({"metadata": {"finalizers": ["example.com/held"]}}));
        world.freeze();
        world.sandboxes().patch(id, &PatchParams::default(), &held).await.unwrap();
        world.send(Method::DELETE, &format!("/v1/sandboxes/{id}"), None).await;
    }
    world.post(&format!("/v1/sandboxes/{id}/renew-expiration"), json!({"expiresAt": end})).await
}

async fn of_kubernetes(code: ErrorCode) -> Answer {
    let world = World::new().await;
    let server = async |fate: fn(&Request<kube::client::Body>) -> Fate, change: fn(&mut Config)| {
        world.another(tampered(world.client.clone(), fate), change).await
    };
    let pass: fn(&Request<kube::client::Body>) -> Fate = |_| Fate::Pass;
    let server = match code {
        ErrorCode::Overloaded => server(pass, |config| config.limits.concurrent_creates = 0).await,
        ErrorCode::RequestTimeout => {
            let hang = |r: &Request<_>| if r.method() == Method::POST { Fate::Hang } else { Fate::Pass };
            server(hang, |config| config.limits.kube_timeout = Duration::from_millis(200)).await
        }
        ErrorCode::QuotaExceeded => {
            let full = |r: &Request<_>| match *r.method() {
                Method::POST => Fate::Refuse(403, "exceeded quota"),
                _ => Fate::Pass,
            };
            server(full, |_| {}).await
        }
        _ => {
            let broken = |r: &Request<_>| match *r.method() {
                Method::POST => Fate::Refuse(500, "InternalError"),
                _ => Fate::Pass,
            };
            server(broken, |_| {}).await
        }
    };
    match code {
        ErrorCode::PoolApiError => world.ask(server, Method::POST, "/v1/pools", a_pool("new")).await,
        _ => world.ask(server, Method::POST, "/v1/sandboxes", from_pool("claim")).await,
    }
}

async fn of_the_proxy(code: ErrorCode) -> Answer {
    let world = World::with(|config| config.limits.proxy_head = Duration::from_millis(300)).await;
    let id = world.created().await;
    let port = match code {
        ErrorCode::BackendTimeout => {
            let never = get(|| async { std::future::pending::<()>().await });
            world.pod_serves(Router::new().route("/", never)).await
        }
        ErrorCode::BackendResponseFailed => {
            let listener = TcpListener::bind((world.pod_ip, 0)).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let _ = stream.read(&mut [0; 1024]).await;
                    let _ = stream.write_all(b"no http\r\n\r\n").await;
                }
            });
            port
        }
        // Nobody listens at the port that was free a moment ago.
        _ => TcpListener::bind((world.pod_ip, 0)).await.unwrap().local_addr().unwrap().port(),
    };
    world.get(&format!("/v1/sandboxes/{id}/proxy/{port}/")).await
}
