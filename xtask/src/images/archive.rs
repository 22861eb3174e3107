//! The archive that engines load: an OCI layout, with the index that older Docker engines read beside it.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use oci_spec::image::{
    ANNOTATION_REF_NAME, ImageIndexBuilder, MediaType, OciLayoutBuilder, Os, PlatformBuilder, SCHEMA_VERSION,
};
use serde::Serialize;
use tar::{EntryType, Header};

use super::image::{Blob, Image};

/// Where containerd and Docker look for an image's full name; the specification's own annotation holds a tag only.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// An entry of `manifest.json`, the format of `docker save` before OCI layouts.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// Writes an image's archive. It appears whole or not at all.
pub fn write(image: &Image, path: &Path) -> Result<()> {
    let partial = path.with_extension("partial");
    let file = File::create(&partial).with_context(|| format!("cannot write {}", partial.display()))?;
    let mut archive = tar::Builder::new(BufWriter::new(file));
    for (name, bytes) in members(image)? {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_size(u64::try_from(bytes.len())?);
        archive.append_data(&mut header, &name, &bytes[..]).with_context(|| format!("cannot write {name}"))?;
    }
    archive.into_inner().and_then(|mut file| file.flush()).context("cannot end the archive")?;
    std::fs::rename(&partial, path).with_context(|| format!("cannot write {}", path.display()))
}

/// The archive's files, by name.
fn members(image: &Image) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut members = BTreeMap::new();
    for blob in image.layers.iter().chain([&image.config, &image.manifest]) {
        members.insert(blob_path(blob), blob.bytes.clone());
    }
    let platform = PlatformBuilder::default().architecture(image.architecture.clone()).os(Os::Linux).build()?;
    let mut manifests = Vec::new();
    for reference in &image.references {
        let mut descriptor = image.manifest.descriptor()?;
        descriptor.set_platform(Some(platform.clone()));
        let mut annotations = HashMap::from([(CONTAINERD_NAME.to_owned(), reference.whole())]);
        if let Some(tag) = reference.tag() {
            annotations.insert(ANNOTATION_REF_NAME.to_owned(), tag.to_owned());
        }
        descriptor.set_annotations(Some(annotations));
        manifests.push(descriptor);
    }
    let index = ImageIndexBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageIndex)
        .manifests(manifests)
        .build()?;
    members.insert("index.json".to_owned(), Blob::json(MediaType::ImageIndex, &index)?.bytes);
    let layout = OciLayoutBuilder::default().image_layout_version("1.0.0").build()?;
    members.insert("oci-layout".to_owned(), Blob::json(MediaType::LayoutHeader, &layout)?.bytes);
    let docker = [DockerImage {
        config: blob_path(&image.config),
        repo_tags: image.references.iter().map(ToString::to_string).collect(),
        layers: image.layers.iter().map(blob_path).collect(),
    }];
    members.insert("manifest.json".to_owned(), serde_json::to_vec(&docker)?);
    Ok(members)
}

fn blob_path(blob: &Blob) -> String {
    format!("blobs/{}", blob.digest().replace(':', "/"))
}
