//! To and from a registry. Compiled only where it is asked for, so that other chores start at once.

use anyhow::{Context, Result, ensure};
use docker_credential::DockerCredential;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::manifest::ImageIndexEntry;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use oci_spec::image::{Arch, Descriptor, ImageManifestBuilder, MediaType, SCHEMA_VERSION};
use tokio::runtime::Runtime;

use super::base::{Base, Store};
use super::image::{Blob, Image};
use super::sbom;

/// How long a registry may be silent.
const SILENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// One registry, with what `docker login` has stored for it.
pub struct Registry {
    runtime: Runtime,
    client: Client,
    auth: RegistryAuth,
}

impl Registry {
    /// Speaks to the registry of an image's name; without TLS where that is this machine.
    pub fn new(reference: &Reference) -> Result<Self> {
        // Whoever came first has chosen.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let host = reference.resolve_registry().to_owned();
        let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
        let local = name == "localhost"
            || name.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        let config = ClientConfig {
            protocol: if local { ClientProtocol::HttpsExcept(vec![host.clone()]) } else { ClientProtocol::Https },
            read_timeout: Some(SILENCE),
            connect_timeout: Some(SILENCE),
            user_agent: concat!("opensandbox-xtask/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let key = if host.ends_with("docker.io") { "https://index.docker.io/v1/" } else { host.as_str() };
        let auth = match docker_credential::get_credential(key) {
            Ok(DockerCredential::UsernamePassword(user, password)) => RegistryAuth::Basic(user, password),
            Ok(DockerCredential::IdentityToken(token)) => RegistryAuth::Bearer(token),
            Err(_) => RegistryAuth::Anonymous,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, client: Client::new(config), auth })
    }

    /// Pushes an image under a name, and its parts list as an artifact that refers to it. Returns the digest.
    pub fn push(&self, image: &Image, reference: &Reference, parts: &[u8]) -> Result<String> {
        self.runtime.block_on(async {
            self.client.store_auth_if_needed(reference.resolve_registry(), &self.auth).await;
            for blob in image.layers.iter().chain([&image.config]) {
                self.push_blob(reference, blob).await?;
            }
            self.push_manifest(reference, &image.manifest).await?;
            self.attach(image, reference, parts).await.context("cannot attach the parts list")
        })?;
        Ok(image.manifest.digest())
    }

    async fn push_blob(&self, reference: &Reference, blob: &Blob) -> Result<()> {
        let digest = blob.digest();
        let is_there = || self.client.blob_exists(reference, &digest);
        if is_there().await.unwrap_or(false) {
            return Ok(());
        }
        match self.client.push_blob(reference, blob.bytes.clone(), &digest).await {
            // Some registries do not say where they put a blob, but they have it.
            Err(OciDistributionError::RegistryNoLocationError) if is_there().await.unwrap_or(false) => Ok(()),
            pushed => pushed.map(drop).map_err(|error| {
                let denied = matches!(
                    error,
                    OciDistributionError::AuthenticationFailure(_) | OciDistributionError::UnauthorizedError { .. }
                );
                let advice = if denied { "; `docker login` stores credentials for a registry" } else { "" };
                anyhow::Error::new(error).context(format!("cannot push to {reference}{advice}"))
            }),
        }
    }

    async fn push_manifest(&self, reference: &Reference, manifest: &Blob) -> Result<()> {
        let media_type = manifest.media_type.as_ref().parse().context("a media type is malformed")?;
        let pushed = self.client.push_manifest_raw(reference, manifest.bytes.clone(), media_type).await;
        pushed.map(drop).with_context(|| format!("cannot push the manifest of {reference}"))
    }

    /// OCI 1.1: a manifest whose subject is the image. A registry that does not know referrers
    /// finds it in an index under the tag that the specification names for that.
    async fn attach(&self, image: &Image, reference: &Reference, parts: &[u8]) -> Result<()> {
        let list = Blob { media_type: MediaType::Other(sbom::MEDIA_TYPE.to_owned()), bytes: parts.to_vec() };
        let empty = Blob { media_type: MediaType::EmptyJSON, bytes: b"{}".to_vec() };
        self.push_blob(reference, &list).await?;
        self.push_blob(reference, &empty).await?;
        let manifest = ImageManifestBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageManifest)
            .artifact_type(list.media_type.clone())
            .config(empty.descriptor()?)
            .layers(vec![list.descriptor()?])
            .subject(image.manifest.descriptor()?)
            .build()?;
        let manifest = Blob::json(MediaType::ImageManifest, &manifest)?;
        let digest = manifest.digest();
        let tagged = |suffix: &str| {
            let tag = format!("{}{suffix}", image.manifest.digest().replace(':', "-"));
            Reference::with_tag(reference.registry().to_owned(), reference.repository().to_owned(), tag)
        };
        // A tag of its own keeps it where registries sweep what has none.
        self.push_manifest(&tagged(".sbom"), &manifest).await?;
        let subject = reference.clone_with_digest(image.manifest.digest());
        let mut known = self.client.pull_referrers(&subject, None).await?;
        if known.manifests.iter().any(|entry| entry.digest == digest) {
            return Ok(());
        }
        known.manifests.push(ImageIndexEntry {
            media_type: manifest.media_type.to_string(),
            digest,
            size: i64::try_from(manifest.bytes.len())?,
            platform: None,
            artifact_type: Some(sbom::MEDIA_TYPE.to_owned()),
            annotations: None,
        });
        known.media_type = Some(MediaType::ImageIndex.to_string());
        self.client.push_manifest_list(&tagged(""), &self.auth, known).await?;
        Ok(())
    }
}

/// What a document of a registry says it is.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Typed {
    media_type: Option<String>,
}

/// Pulls an image for a platform, to put ours on it.
pub fn pull(name: &str, arch: &Arch) -> Result<Base> {
    let reference: Reference = name.parse().with_context(|| format!("{name:?} is no image's name"))?;
    let registry = Registry::new(&reference)?;
    let accepted = [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    ];
    let pulled = registry.runtime.block_on(registry.client.pull_manifest_raw(&reference, &registry.auth, &accepted));
    let (document, _) = pulled.with_context(|| format!("cannot pull {reference}"))?;
    let typed: Typed = serde_json::from_slice(&document).context("the manifest is malformed")?;
    let media_type = typed.media_type.as_deref().map_or(MediaType::ImageManifest, MediaType::from);
    let top = Blob { media_type, bytes: document.to_vec() };
    let descriptor = top.descriptor()?;
    let mut store = Remote { registry: &registry, reference: &reference, top };
    Base::choose(&reference.whole(), &[descriptor], arch, &mut store, 0)
}

/// The registry as a store of one image.
struct Remote<'a> {
    registry: &'a Registry,
    reference: &'a Reference,
    top: Blob,
}

impl Store for Remote<'_> {
    fn get(&mut self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let digest = descriptor.digest().to_string();
        if digest == self.top.digest() {
            return Ok(self.top.bytes.clone());
        }
        let Registry { runtime, client, auth } = self.registry;
        runtime.block_on(async {
            if descriptor.media_type().as_ref().contains("manifest")
                || *descriptor.media_type() == MediaType::ImageIndex
            {
                let reference = self.reference.clone_with_digest(digest.clone());
                let accepted = [descriptor.media_type().as_ref()];
                let (document, _) = client.pull_manifest_raw(&reference, auth, &accepted).await?;
                return Ok(document.to_vec());
            }
            let mut bytes = Vec::new();
            client.pull_blob(self.reference, digest.as_str(), &mut bytes).await?;
            ensure!(bytes.len() as u64 == descriptor.size(), "{digest} has another size");
            Ok(bytes)
        })
    }
}
