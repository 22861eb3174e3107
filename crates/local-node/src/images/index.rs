//! Which images are here: one small file, replaced as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ImageDefaults;

const INDEX: &str = "index.json";
const LOCK: &str = "index.lock";

/// An image whose layers are unpacked here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Digest of the configuration, which is the image's identity.
    pub id: String,
    /// Digest of the manifest, by which a registry names the image.
    pub manifest: Option<String>,
    /// Digests of the layers before compression, in hexadecimal, lowest first.
    pub layers: Vec<String>,
    /// What the image says about running it.
    pub config: ImageDefaults,
    /// Bytes of all layers.
    pub size: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    images: BTreeMap<String, Record>,
}

/// The index. Several processes may share it.
#[derive(Debug)]
pub(super) struct Index {
    dir: PathBuf,
}

impl Index {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    fn read(&self) -> io::Result<Content> {
        match fs::read(self.dir.join(INDEX)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Content::default()),
            Err(error) => Err(error),
        }
    }

    /// Every image by its name.
    pub fn all(&self) -> io::Result<BTreeMap<String, Record>> {
        Ok(self.read()?.images)
    }

    /// The image of this name, or of the same repository with this manifest's digest.
    pub fn find(&self, name: &str) -> io::Result<Option<Record>> {
        let mut images = self.read()?.images;
        if let Some(record) = images.remove(name) {
            return Ok(Some(record));
        }
        let Some((repository, digest)) = name.split_once('@') else { return Ok(None) };
        let repository = without_tag(repository);
        Ok(images.into_iter().find_map(|(other, record)| {
            let same = without_tag(other.split('@').next().unwrap_or_default()) == repository;
            (same && record.manifest.as_deref() == Some(digest)).then_some(record)
        }))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Content) -> T) -> io::Result<T> {
        let lock = File::options().create(true).append(true).open(self.dir.join(LOCK))?;
        lock.lock()?;
        let mut content = self.read()?;
        let result = change(&mut content);
        let temporary = self.dir.join(".index.json");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(&content)?)?;
        file.sync_all()?;
        fs::rename(temporary, self.dir.join(INDEX))?;
        File::open(&self.dir)?.sync_all()?;
        Ok(result)
    }

    /// Adds or replaces images.
    pub fn insert(&self, images: Vec<(String, Record)>) -> io::Result<()> {
        self.change(|content| content.images.extend(images))
    }

    /// Removes an image; whether it was there.
    pub fn remove(&self, name: &str) -> io::Result<bool> {
        self.change(|content| content.images.remove(name).is_some())
    }

    /// Layers that some image has.
    pub fn layers(&self) -> io::Result<BTreeSet<String>> {
        Ok(self.read()?.images.into_values().flat_map(|record| record.layers).collect())
    }
}

/// A name without its tag; a colon before the last slash is a port.
fn without_tag(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((before, after)) if !after.contains('/') => before,
        _ => name,
    }
}
