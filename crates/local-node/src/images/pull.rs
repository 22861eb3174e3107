//! From a registry into the store.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine;
use futures::{StreamExt, TryStreamExt};
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWrite;
use tokio::sync::watch;

use super::PullProgress;
use super::error::{IS_HERE, ImageError, NOT_HERE, io as io_error};
use super::host::hex;
use super::index::Record;
use super::manifest::{self, Config, Descriptor, Document, MAX_DOCUMENT, MAX_LAYERS};
use super::store::{ImageStore, blocking};

/// Layers that come at a time.
const CONCURRENT: usize = 3;
/// Attempts at anything that fails for a passing reason.
const ATTEMPTS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// How long a registry is tried when something else stands in for what it does not give.
const BRIEF: Duration = Duration::from_secs(5);

const ACCEPTED: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// A user's name and password for one registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User.
    pub username: String,
    /// Password or token.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: std::collections::BTreeMap<String, DockerAuth>,
}

#[derive(Deserialize)]
struct DockerAuth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

impl Credentials {
    /// What a `kubernetes.io/dockerconfigjson` Secret holds for the image's registry.
    pub fn from_docker_config(config: &[u8], reference: &str) -> Option<Self> {
        let wanted = reference.parse::<Reference>().ok()?;
        let config: DockerConfig = serde_json::from_slice(config).ok()?;
        let host = |key: &str| {
            let key = key.trim_start_matches("https://").trim_start_matches("http://");
            let host = key.split('/').next().unwrap_or_default();
            if matches!(host, "index.docker.io" | "registry-1.docker.io") { "docker.io" } else { host }.to_owned()
        };
        let entry = config.auths.into_iter().find(|(key, _)| host(key) == wanted.registry())?.1;
        if let (Some(username), Some(password)) = (entry.username, entry.password) {
            return Some(Self { username, password });
        }
        let decoded = base64::engine::general_purpose::STANDARD.decode(entry.auth?.trim()).ok()?;
        let text = String::from_utf8(decoded).ok()?;
        let (username, password) = text.split_once(':')?;
        Some(Self { username: username.to_owned(), password: password.to_owned() })
    }

    /// Tells credentials apart without holding them.
    pub(super) fn key(&self) -> String {
        hex(&Sha256::digest(format!("{}\0{}", self.username, self.password)))
    }
}

/// How much a pull may try.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Something stands in: the registry must answer at once.
    pub brief: bool,
    /// An older copy is here.
    pub have_local: bool,
}

struct Puller<'a> {
    store: &'a ImageStore,
    reference: &'a Reference,
    client: Client,
    auth: RegistryAuth,
    patience: Patience,
    report: &'a watch::Sender<PullProgress>,
}

/// Pulls an image into the store, within the store's deadline.
pub(super) async fn run(
    store: &ImageStore,
    reference: &Reference,
    credentials: Option<Credentials>,
    patience: Patience,
    report: &watch::Sender<PullProgress>,
) -> Result<Record, ImageError> {
    let after = store.inner.config.pull_timeout;
    let auth = credentials.map_or(RegistryAuth::Anonymous, |known| RegistryAuth::Basic(known.username, known.password));
    let client = client(store, reference)?;
    let _adding = store.inner.adding.read().await;
    let puller = Puller { store, reference, client, auth, patience, report };
    tokio::time::timeout(after, puller.pull())
        .await
        .unwrap_or_else(|_| Err(ImageError::TimedOut { reference: reference.whole(), after }))
}

fn client(store: &ImageStore, reference: &Reference) -> Result<Client, ImageError> {
    static PROVIDER: OnceLock<()> = OnceLock::new();
    // Whoever came first has chosen; ours is only for who did not.
    PROVIDER.get_or_init(|| drop(rustls::crypto::ring::default_provider().install_default()));
    let config = &store.inner.config;
    let registry = reference.resolve_registry().to_owned();
    let plain = config.plain_http.contains(&registry) || is_loopback(&registry);
    let root = |pem: &Vec<u8>| Certificate { encoding: CertificateEncoding::Pem, data: pem.clone() };
    let roots = config.extra_roots.iter().map(root).collect();
    let config = ClientConfig {
        protocol: if plain { ClientProtocol::HttpsExcept(vec![registry]) } else { ClientProtocol::Https },
        connect_timeout: Some(config.connect_timeout),
        read_timeout: Some(config.connect_timeout.max(Duration::from_secs(30))),
        platform_resolver: None,
        extra_root_certificates: roots,
        user_agent: concat!("opensandbox/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    };
    Client::try_from(config).map_err(|error| io_error("prepare to pull")(io::Error::other(error.to_string())))
}

fn is_loopback(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    host == "localhost" || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl Puller<'_> {
    async fn pull(&self) -> Result<Record, ImageError> {
        let name = self.reference.whole();
        let first = if self.patience.brief {
            tokio::time::timeout(BRIEF, self.document(self.reference))
                .await
                .unwrap_or_else(|_| Err(self.unreachable("no answer".to_owned())))?
        } else {
            self.retried(|| self.document(self.reference)).await?
        };
        let (mut document, mut digest) = first;
        if let Some(entries) = &document.manifests {
            let chosen = manifest::choose(entries, &name)?.digest.clone();
            manifest::digest_hex(&chosen, &name)?;
            let exact = self.reference.clone_with_digest(chosen);
            (document, digest) = self.retried(|| self.document(&exact)).await?;
        }
        let config =
            document.config.as_ref().ok_or_else(|| ImageError::corrupt(&name, "the manifest has no configuration"))?;
        if document.layers.len() > MAX_LAYERS {
            return Err(ImageError::TooLarge { what: name, limit: format!("{MAX_LAYERS} layers") });
        }
        let bytes = self.retried(|| self.small(config)).await?;
        let parsed: Config = manifest::parse(&bytes, &name)?;
        let layers = parsed.layers(&name, document.layers.len())?;
        let size = self.layers(&document.layers, &layers).await?;
        let record =
            Record { id: config.digest.clone(), manifest: Some(digest), layers, config: parsed.defaults(), size };
        let (store, stored) = (self.store.clone(), record.clone());
        blocking(move || store.inner.index.insert(vec![(name, stored)]).map_err(io_error("write the list of images")))
            .await?;
        Ok(record)
    }

    /// A manifest or index, and its digest.
    async fn document(&self, reference: &Reference) -> Result<(Document, String), ImageError> {
        let name = reference.whole();
        let (bytes, _) = self
            .client
            .pull_manifest_raw(reference, &self.auth, &ACCEPTED)
            .await
            .map_err(|error| self.explain(&error))?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(ImageError::TooLarge { what: name, limit: format!("{MAX_DOCUMENT} bytes for a manifest") });
        }
        let digest = format!("sha256:{}", hex(&Sha256::digest(&bytes)));
        if let Some(wanted) = reference.digest()
            && wanted != digest
        {
            return Err(ImageError::corrupt(name, format_args!("digest is {digest}, not {wanted}")));
        }
        Ok((manifest::parse(&bytes, &name)?, digest))
    }

    async fn small(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        let out = Bounded { inner: &mut bytes, left: MAX_DOCUMENT, done: None };
        self.client.pull_blob(self.reference, &oci(descriptor), out).await.map_err(|error| self.explain(&error))?;
        Ok(bytes)
    }

    /// Brings every layer that is not here; returns the bytes of all.
    async fn layers(&self, descriptors: &[Descriptor], ids: &[String]) -> Result<u64, ImageError> {
        let total = descriptors.iter().map(|d| d.size).sum();
        let done = Arc::new(AtomicU64::new(0));
        self.report.send_modify(|p| *p = PullProgress { layers: ids.len(), bytes: total, ..*p });
        let owned: Vec<(Descriptor, String)> = descriptors.iter().cloned().zip(ids.iter().cloned()).collect();
        let work = owned.into_iter().map(|(descriptor, id)| {
            let done = Arc::clone(&done);
            async move {
                if !self.store.inner.layer(&id).is_dir() {
                    self.layer(&descriptor, &id, &done).await?;
                }
                self.report.send_modify(|p| p.layers_done += 1);
                Ok::<_, ImageError>(descriptor.size)
            }
        });
        futures::stream::iter(work)
            .buffer_unordered(CONCURRENT)
            .try_fold(0, |sum, size| async move { Ok(sum + size) })
            .await
    }

    async fn layer(&self, descriptor: &Descriptor, id: &str, done: &Arc<AtomicU64>) -> Result<(), ImageError> {
        let what = format!("layer {}", descriptor.digest);
        let limit = self.store.inner.config.limits.bytes;
        if descriptor.size > limit {
            return Err(ImageError::TooLarge { what, limit: format!("{limit} bytes") });
        }
        let digest = manifest::digest_hex(&descriptor.digest, &what)?.to_owned();
        let fresh = self.store.inner.temporary().map_err(io_error(format!("store {what}")))?;
        let path = fresh.path().join("blob");
        self.retried(|| async {
            let before = done.load(Ordering::Relaxed);
            let file = tokio::fs::File::create(&path).await.map_err(io_error(format!("store {what}")))?;
            let count = || (Arc::clone(done), self.report.clone());
            let out = Bounded { inner: file, left: descriptor.size, done: Some(count()) };
            let result = self.client.pull_blob(self.reference, &oci(descriptor), out).await;
            if result.is_err() {
                done.store(before, Ordering::Relaxed);
            }
            result.map_err(|error| self.explain(&error))
        })
        .await?;
        let (store, id) = (self.store.clone(), id.to_owned());
        blocking(move || {
            let file = std::fs::File::open(fresh.path().join("blob")).map_err(io_error(format!("read {what}")))?;
            store.inner.add_layer(file, Some(&digest), &id, &what).map(drop)
        })
        .await
    }

    async fn retried<T, F: Future<Output = Result<T, ImageError>>>(
        &self,
        attempt: impl Fn() -> F,
    ) -> Result<T, ImageError> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..ATTEMPTS {
            match attempt().await {
                Err(error) if error.passes() => {}
                other => return other,
            }
            tokio::time::sleep(pause).await;
            pause *= 3;
        }
        attempt().await
    }

    fn unreachable(&self, reason: String) -> ImageError {
        ImageError::Unreachable {
            reference: self.reference.whole(),
            registry: self.reference.registry().to_owned(),
            reason,
            hint: if self.patience.have_local { IS_HERE } else { NOT_HERE },
        }
    }

    fn explain(&self, error: &OciDistributionError) -> ImageError {
        let reference = self.reference.whole();
        let unauthorized = || ImageError::Unauthorized {
            reference: reference.clone(),
            registry: self.reference.registry().to_owned(),
        };
        match error {
            OciDistributionError::ImageManifestNotFoundError(_) => ImageError::NotFound { reference },
            OciDistributionError::AuthenticationFailure(_) | OciDistributionError::UnauthorizedError { .. } => {
                unauthorized()
            }
            OciDistributionError::RegistryError { envelope, .. } => {
                let codes: Vec<&OciErrorCode> = envelope.errors.iter().map(|error| &error.code).collect();
                let has = |wanted: &[OciErrorCode]| codes.iter().any(|code| wanted.contains(code));
                if has(&[OciErrorCode::ManifestUnknown, OciErrorCode::NameUnknown, OciErrorCode::NotFound]) {
                    ImageError::NotFound { reference }
                } else if has(&[OciErrorCode::Unauthorized, OciErrorCode::Denied]) {
                    unauthorized()
                } else {
                    self.unreachable(envelope.to_string())
                }
            }
            OciDistributionError::ServerError { code: 404, .. } => ImageError::NotFound { reference },
            OciDistributionError::ServerError { code: 401 | 403, .. } => unauthorized(),
            OciDistributionError::ServerError { code, .. } => self.unreachable(format!("the registry answers {code}")),
            OciDistributionError::DigestError(error) => ImageError::corrupt(reference, error),
            OciDistributionError::IoError(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                ImageError::corrupt(reference, "content is longer than its manifest says")
            }
            OciDistributionError::IoError(error) if error.kind() == io::ErrorKind::StorageFull => {
                io_error(format!("store {reference}"))(io::Error::from(io::ErrorKind::StorageFull))
            }
            OciDistributionError::RequestError(error) => self.unreachable(causes(error)),
            other => self.unreachable(other.to_string()),
        }
    }
}

/// An error and what is behind it, without addresses that may carry secrets in their query.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

fn oci(descriptor: &Descriptor) -> OciDescriptor {
    OciDescriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.clone(),
        size: descriptor.size.min(i64::MAX as u64).cast_signed(),
        ..OciDescriptor::default()
    }
}

/// Refuses more than was announced, and counts.
struct Bounded<W> {
    inner: W,
    left: u64,
    done: Option<(Arc<AtomicU64>, watch::Sender<PullProgress>)>,
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Bounded<W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        if buffer.len() as u64 > self.left {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::FileTooLarge)));
        }
        let written = std::task::ready!(Pin::new(&mut self.inner).poll_write(cx, buffer))?;
        self.left -= written as u64;
        if let Some((done, report)) = &self.done {
            let bytes = done.fetch_add(written as u64, Ordering::Relaxed) + written as u64;
            report.send_modify(|p| p.bytes_done = bytes);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
