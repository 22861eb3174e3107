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

/// TLS in front of a registry.
struct Tls {
    listener: tokio::net::TcpListener,
    acceptor: tokio_rustls::TlsAcceptor,
}

impl axum::serve::Listener for Tls {
    type Io = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.listener.accept().await.unwrap();
            // A client that does not trust the certificate hangs up.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// An address of this machine that is not loopback, where registries are spoken to without TLS.
fn outer_address() -> Option<std::net::Ipv4Addr> {
    let interfaces = nix::ifaddrs::getifaddrs().ok()?;
    let addresses = interfaces.filter_map(|interface| interface.address?.as_sockaddr_in().map(|address| address.ip()));
    addresses.into_iter().find(|ip| !ip.is_loopback() && !ip.is_link_local())
}

#[tokio::test]
async fn a_registry_with_tls_is_trusted_by_its_certificate_alone() {
    let Some(ip) = outer_address() else {
        println!("skipped: this machine has no address but loopback");
        return;
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let made = rcgen::generate_simple_self_signed([ip.to_string()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let listener = tokio::net::TcpListener::bind((ip, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (blobs, manifest) = image(&[layer("hello", "world")], &manifest::Platform::here().architecture);
    let tags = BTreeMap::from([("1".to_owned(), manifest)]);
    let registry = Arc::new(Registry { address: address.to_string(), blobs, tags, ..Registry::default() });
    let router = Router::new().fallback(serve).with_state(Arc::clone(&registry));
    let tls = Tls { listener, acceptor: tokio_rustls::TlsAcceptor::from(Arc::new(server)) };
    tokio::spawn(async move { axum::serve(tls, router).await });

    let name = format!("{address}/team/app:1");
    let dir = tempfile::tempdir().unwrap();
    let wary = store(&dir.path().join("wary"), |_| {});
    let error = wary.ensure(&name, PullPolicy::IfNotPresent, None, no_progress).await.unwrap_err();
    assert!(matches!(error, ImageError::Unreachable { .. }), "{error}");
    assert!(registry.served.lock().is_empty());
    let knowing = store(&dir.path().join("knowing"), |config| config.extra_roots = vec![made.cert.pem().into_bytes()]);
    let image = knowing.ensure(&name, PullPolicy::IfNotPresent, None, no_progress).await.unwrap();
    assert_eq!(fs::read(image.lower[0].join("hello")).unwrap(), b"world");
}
