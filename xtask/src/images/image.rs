//! An image in memory: layers, configuration, manifest, and the names it goes by.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result};
use oci_spec::distribution::Reference;
use oci_spec::image::{
    ANNOTATION_BASE_IMAGE_DIGEST, ANNOTATION_BASE_IMAGE_NAME, ANNOTATION_CREATED, ANNOTATION_DESCRIPTION,
    ANNOTATION_LICENSES, ANNOTATION_REVISION, ANNOTATION_SOURCE, ANNOTATION_TITLE, ANNOTATION_VERSION, Arch,
    ConfigBuilder, Descriptor, HistoryBuilder, ImageConfigurationBuilder, ImageManifestBuilder, MediaType, Os,
    RootFsBuilder, SCHEMA_VERSION,
};
use serde::Serialize;

use super::base::Base;
use super::layer::{Layer, digest};
use super::recipe::Recipe;
use super::source::Source;

/// A document or a layer, by its digest.
#[derive(Clone)]
pub struct Blob {
    /// Its media type.
    pub media_type: MediaType,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Blob {
    /// `sha256:...`.
    pub fn digest(&self) -> String {
        digest(&self.bytes)
    }

    /// What a manifest or an index says about it.
    pub fn descriptor(&self) -> Result<Descriptor> {
        let digest: oci_spec::image::Digest = self.digest().parse().context("a digest of ours is malformed")?;
        Ok(Descriptor::new(self.media_type.clone(), u64::try_from(self.bytes.len())?, digest))
    }

    /// A document with its keys sorted: the builders keep maps in an order that differs from run to run.
    pub fn json(media_type: MediaType, document: &impl Serialize) -> Result<Self> {
        let mut value = serde_json::to_value(document).context("cannot write a document of the image")?;
        value.sort_all_objects();
        Ok(Self { media_type, bytes: serde_json::to_vec(&value)? })
    }
}

/// An image for one platform.
pub struct Image {
    /// `execd` and so on.
    pub name: String,
    /// The full names it goes by; the first is its own, the others are aliases.
    pub references: Vec<Reference>,
    /// The processor, as Go spells it.
    pub architecture: Arch,
    /// The manifest, whose digest is the image's.
    pub manifest: Blob,
    /// The configuration.
    pub config: Blob,
    /// The layers, lowest first.
    pub layers: Vec<Blob>,
    /// Bytes of our own layers before compression.
    pub unpacked: u64,
}

impl Image {
    /// Puts an image together, on another one if there is a base.
    pub fn new(
        recipe: &Recipe,
        base: Option<&Base>,
        layers: Vec<Layer>,
        architecture: Arch,
        source: &Source,
        references: Vec<Reference>,
    ) -> Result<Self> {
        let labels = labels(recipe, base, source);
        let mut config = ConfigBuilder::default()
            .user(recipe.user.clone())
            .working_dir(recipe.workdir.clone())
            .labels(labels.clone().into_iter().collect::<HashMap<_, _>>());
        if !recipe.entrypoint.is_empty() {
            config = config.entrypoint(recipe.entrypoint.clone());
        }
        if !recipe.env.is_empty() {
            config = config.env(recipe.env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>());
        }
        if !recipe.ports.is_empty() {
            config = config.exposed_ports(recipe.ports.iter().map(|port| format!("{port}/tcp")).collect::<Vec<_>>());
        }
        let mut history = base.and_then(|base| base.config.history().clone()).unwrap_or_default();
        let mut diff_ids = base.map(|base| base.config.rootfs().diff_ids().clone()).unwrap_or_default();
        for layer in &layers {
            let made = HistoryBuilder::default().created(source.created.clone()).created_by(layer.comment.clone());
            history.push(made.build()?);
            diff_ids.push(layer.diff_id.clone());
        }
        let config = ImageConfigurationBuilder::default()
            .created(source.created.clone())
            .architecture(architecture.clone())
            .os(Os::Linux)
            .config(config.build()?)
            .rootfs(RootFsBuilder::default().diff_ids(diff_ids).build()?)
            .history(history)
            .build()?;
        let config = Blob::json(MediaType::ImageConfig, &config)?;
        let unpacked = layers.iter().map(|layer| layer.unpacked).sum();
        let own = layers.into_iter().map(|layer| Blob { media_type: MediaType::ImageLayerGzip, bytes: layer.bytes });
        let layers: Vec<_> = base.map(|base| base.layers.clone()).unwrap_or_default().into_iter().chain(own).collect();
        let manifest = ImageManifestBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageManifest)
            .config(config.descriptor()?)
            .layers(layers.iter().map(Blob::descriptor).collect::<Result<Vec<_>>>()?)
            .annotations(labels.into_iter().collect::<HashMap<_, _>>())
            .build()?;
        let manifest = Blob::json(MediaType::ImageManifest, &manifest)?;
        Ok(Self { name: recipe.name.clone(), references, architecture, manifest, config, layers, unpacked })
    }

    /// The bytes that a registry transfers.
    pub fn size(&self) -> u64 {
        let blobs = self.layers.iter().chain([&self.config, &self.manifest]);
        blobs.map(|blob| u64::try_from(blob.bytes.len()).unwrap_or(u64::MAX)).sum()
    }
}

/// The labels that the image specification names.
fn labels(recipe: &Recipe, base: Option<&Base>, source: &Source) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<_, _> = [
        (ANNOTATION_CREATED, source.created.clone()),
        (ANNOTATION_TITLE, recipe.title.clone()),
        (ANNOTATION_DESCRIPTION, recipe.description.clone()),
        (ANNOTATION_LICENSES, recipe.licenses.clone().unwrap_or_else(|| source.license.clone())),
        (ANNOTATION_SOURCE, source.repository.clone()),
        (ANNOTATION_VERSION, source.version.clone()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    if let Some(revision) = &source.revision {
        labels.insert(ANNOTATION_REVISION.to_owned(), revision.clone());
    }
    if let Some(base) = base {
        labels.insert(ANNOTATION_BASE_IMAGE_NAME.to_owned(), base.name.clone());
        labels.insert(ANNOTATION_BASE_IMAGE_DIGEST.to_owned(), base.digest.clone());
    }
    labels
}
