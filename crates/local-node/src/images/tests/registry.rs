//! Pulls from a registry that lives in the test.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode, header};
use base64::Engine;
use parking_lot::Mutex;

use super::archives::{image, layer};
use super::*;

#[derive(Default)]
struct Registry {
    address: String,
    blobs: BTreeMap<String, Vec<u8>>,
    tags: BTreeMap<String, String>,
    /// User and password as the token service wants them.
    basic: Option<String>,
    /// Answers given instead of the true one, in turn.
    faults: Mutex<VecDeque<StatusCode>>,
    served: Mutex<Vec<String>>,
}

fn answer(status: StatusCode, body: impl Into<Body>) -> Response<Body> {
    Response::builder().status(status).body(body.into()).unwrap()
}

async fn serve(State(registry): State<Arc<Registry>>, request: Request) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let authorization = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if path == "/token" {
        let known = registry.basic.as_deref().is_none_or(|basic| authorization == format!("Basic {basic}"));
        return if known {
            answer(StatusCode::OK, "{\"token\":\"sesame\"}")
        } else {
            answer(StatusCode::UNAUTHORIZED, "{}")
        };
    }
    if registry.basic.is_some() && authorization != "Bearer sesame" {
        let challenge = format!("Bearer realm=\"http://{}/token\",service=\"test\"", registry.address);
        return Response::builder()
            .status(StatusCode::UNAUTHORIZED)
            .header(header::WWW_AUTHENTICATE, challenge)
            .body(Body::from("{\"errors\":[{\"code\":\"UNAUTHORIZED\",\"message\":\"no\"}]}"))
            .unwrap();
    }
    if path == "/v2/" {
        return answer(StatusCode::OK, "{}");
    }
    if let Some(status) = registry.faults.lock().pop_front() {
        return answer(status, "trouble");
    }
    let (_, name) = path.rsplit_once('/').unwrap();
    registry.served.lock().push(name.to_owned());
    let digest = registry.tags.get(name).cloned().unwrap_or_else(|| name.to_owned());
    match registry.blobs.get(&digest) {
        Some(bytes) => Response::builder()
            .header(header::CONTENT_TYPE, "application/vnd.oci.image.manifest.v1+json")
            .header("docker-content-digest", digest)
            .body(Body::from(bytes.clone()))
            .unwrap(),
        None => answer(
            StatusCode::NOT_FOUND,
            "{\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\",\"message\":\"manifest unknown\"}]}",
        ),
    }
}

async fn start(change: impl FnOnce(&mut Registry)) -> Arc<Registry> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (blobs, manifest) =
        image(&[layer("hello", "world"), layer("two", "2")], &manifest::Platform::here().architecture);
    let mut registry = Registry {
        address: listener.local_addr().unwrap().to_string(),
        blobs,
        tags: BTreeMap::from([("1".to_owned(), manifest)]),
        ..Registry::default()
    };
    change(&mut registry);
    let registry = Arc::new(registry);
    let router = Router::new().fallback(serve).with_state(Arc::clone(&registry));
    tokio::spawn(async move { axum::serve(listener, router).await });
    registry
}

#[tokio::test]
async fn an_image_is_pulled_once_for_all_who_ask() {
    let registry = start(|_| {}).await;
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), |_| {});
    let name = format!("{}/team/app:1", registry.address);
    let seen = Mutex::new(PullProgress::default());
    let (one, two) = tokio::join!(
        store.ensure(&name, PullPolicy::IfNotPresent, None, |progress| *seen.lock() = progress),
        store.ensure(&name, PullPolicy::IfNotPresent, None, no_progress),
    );
    let image = one.unwrap();
    assert_eq!(image, two.unwrap());
    assert_eq!(fs::read(image.lower[1].join("hello")).unwrap(), b"world");
    assert_eq!(registry.served.lock().len(), 4, "one manifest, one configuration, two layers");
    store.ensure(&name, PullPolicy::IfNotPresent, None, no_progress).await.unwrap();
    assert_eq!(registry.served.lock().len(), 4, "it is here");
    store.ensure(&name, PullPolicy::Always, None, no_progress).await.unwrap();
    assert_eq!(registry.served.lock().len(), 6, "layers that are here do not come again");
    let by_digest = format!("{}/team/app@{}", registry.address, registry.tags["1"]);
    assert_eq!(store.ensure(&by_digest, PullPolicy::Never, None, no_progress).await.unwrap().id, image.id);
}

#[tokio::test]
async fn passing_faults_are_outlived_and_others_told() {
    let registry = start(|_| {}).await;
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), |_| {});
    let missing = format!("{}/team/app:2", registry.address);
    let error = store.ensure(&missing, PullPolicy::Always, None, no_progress).await.unwrap_err();
    assert!(matches!(error, ImageError::NotFound { .. }), "{error}");
    registry.faults.lock().extend([StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE]);
    let name = format!("{}/team/app:1", registry.address);
    store.ensure(&name, PullPolicy::IfNotPresent, None, no_progress).await.unwrap();
}

#[tokio::test]
async fn damaged_content_is_refused() {
    let registry = start(|registry| {
        let layer = registry.blobs.values_mut().find(|bytes| bytes.starts_with(&[0x1f, 0x8b])).unwrap();
        *layer.last_mut().unwrap() ^= 1;
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), |_| {});
    let name = format!("{}/team/app:1", registry.address);
    let error = store.ensure(&name, PullPolicy::IfNotPresent, None, no_progress).await.unwrap_err();
    assert!(matches!(error, ImageError::Corrupt { .. }), "{error}");
    assert!(store.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn credentials_open_what_is_private() {
    let basic = base64::engine::general_purpose::STANDARD.encode("me:secret");
    let registry = start(|registry| registry.basic = Some(basic.clone())).await;
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), |_| {});
    let name = format!("{}/team/app:1", registry.address);
    let error = store.ensure(&name, PullPolicy::IfNotPresent, None, no_progress).await.unwrap_err();
    assert!(matches!(error, ImageError::Unauthorized { .. }), "{error}");
    let config = format!("{{\"auths\":{{\"http://{}\":{{\"auth\":\"{basic}\"}}}}}}", registry.address);
    let credentials = Credentials::from_docker_config(config.as_bytes(), &name).unwrap();
    assert!(!format!("{credentials:?}").contains("secret"));
    assert!(Credentials::from_docker_config(config.as_bytes(), "nginx").is_none());
    store.ensure(&name, PullPolicy::IfNotPresent, Some(credentials), no_progress).await.unwrap();
}
