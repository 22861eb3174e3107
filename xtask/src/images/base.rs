//! `--base`: an image below ours, from an archive or a registry.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use oci_spec::image::{Arch, Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType, Os};

use super::image::Blob;
use super::layer::digest;

/// No file of an archive may be larger.
const MAX_BLOB: u64 = 2 << 30;
/// No document (index, manifest, configuration) may be larger.
const MAX_DOCUMENT: usize = 8 << 20;

/// The image below ours.
#[derive(Clone)]
pub struct Base {
    /// What the caller named.
    pub name: String,
    /// Its manifest's digest.
    pub digest: String,
    /// Its configuration, whose layers, history and environment ours continues.
    pub config: ImageConfiguration,
    /// Its layers, lowest first.
    pub layers: Vec<Blob>,
}

/// Documents and layers, by digest.
pub trait Store {
    /// The content of a descriptor; its digest has not been checked.
    fn get(&mut self, descriptor: &Descriptor) -> Result<Vec<u8>>;
}

impl Base {
    /// Reads an image from an OCI archive.
    pub fn from_archive(path: &Path, arch: &Arch) -> Result<Self> {
        let mut archive = Archive::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let index = archive.0.get("index.json").with_context(|| {
            format!("{} is no OCI archive (it has no index.json); `skopeo copy` makes one", path.display())
        })?;
        let index: ImageIndex = serde_json::from_slice(index).context("its index.json is malformed")?;
        Self::choose(&path.display().to_string(), index.manifests(), arch, &mut archive, 0)
    }

    /// Finds the manifest of a platform below some descriptors: an index may hold indexes.
    pub fn choose(
        name: &str,
        descriptors: &[Descriptor],
        arch: &Arch,
        store: &mut impl Store,
        depth: u8,
    ) -> Result<Self> {
        ensure!(depth < 4, "the indexes of {name} are nested too deep");
        let fits = |descriptor: &&Descriptor| {
            descriptor.platform().as_ref().is_none_or(|it| it.architecture() == arch && *it.os() == Os::Linux)
        };
        let chosen = descriptors.iter().find(fits).with_context(|| format!("{name} has no image for linux/{arch}"))?;
        let document = get(store, chosen)?;
        ensure!(document.len() <= MAX_DOCUMENT, "a manifest of {name} is too large");
        if is_index(chosen.media_type()) {
            let index: ImageIndex = serde_json::from_slice(&document).context("an index is malformed")?;
            return Self::choose(name, index.manifests(), arch, store, depth + 1);
        }
        let manifest: ImageManifest = serde_json::from_slice(&document).context("the manifest is malformed")?;
        let config: ImageConfiguration =
            serde_json::from_slice(&get(store, manifest.config())?).context("the configuration is malformed")?;
        ensure!(config.architecture() == arch, "{name} is for {}, not for {arch}", config.architecture());
        ensure!(
            config.rootfs().diff_ids().len() == manifest.layers().len(),
            "{name} has {} layers and names {}",
            manifest.layers().len(),
            config.rootfs().diff_ids().len()
        );
        let layers = manifest
            .layers()
            .iter()
            .map(|layer| Ok(Blob { media_type: as_oci(layer.media_type())?, bytes: get(store, layer)? }))
            .collect::<Result<_>>()?;
        Ok(Self { name: name.to_owned(), digest: digest(&document), config, layers })
    }
}

fn get(store: &mut impl Store, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let bytes = store.get(descriptor)?;
    ensure!(digest(&bytes) == descriptor.digest().to_string(), "the content of {} is another", descriptor.digest());
    Ok(bytes)
}

fn is_index(media_type: &MediaType) -> bool {
    *media_type == MediaType::ImageIndex
        || media_type.as_ref() == "application/vnd.docker.distribution.manifest.list.v2+json"
}

/// Docker's own types of layers have the same contents as OCI's; one manifest must not mix them.
fn as_oci(media_type: &MediaType) -> Result<MediaType> {
    Ok(match media_type.as_ref() {
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => MediaType::ImageLayerGzip,
        "application/vnd.docker.image.rootfs.diff.tar" => MediaType::ImageLayer,
        _ => match media_type {
            MediaType::ImageLayer | MediaType::ImageLayerGzip | MediaType::ImageLayerZstd => media_type.clone(),
            other => bail!("layers of type {other} cannot be carried over"),
        },
    })
}

/// The files of an archive.
struct Archive(HashMap<String, Vec<u8>>);

impl Archive {
    fn read(path: &Path) -> Result<Self> {
        let mut files = HashMap::new();
        let mut archive = tar::Archive::new(File::open(path)?);
        for entry in archive.entries()? {
            let mut entry = entry?;
            ensure!(entry.size() <= MAX_BLOB, "a file in it has {} bytes", entry.size());
            let name = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            files.insert(name, bytes);
        }
        Ok(Self(files))
    }
}

impl Store for Archive {
    fn get(&mut self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let path = format!("blobs/{}", descriptor.digest().to_string().replace(':', "/"));
        self.0.get(&path).cloned().with_context(|| format!("the archive has no {}", descriptor.digest()))
    }
}
