//! From a file into the store: OCI layouts and archives, and what `docker save` writes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::error::{ImageError, io as io_error};
use super::host::hex;
use super::index::Record;
use super::manifest::{self, Config, Descriptor, Document, MAX_DOCUMENT};
use super::store::{ImageStore, Inner, blocking, parse};
use super::unpack::decompressed;

/// Most files in an archive.
const MAX_FILES: usize = 10_000;
/// Indexes within indexes.
const MAX_DEPTH: usize = 4;

const CONTAINERD_NAME: &str = "io.containerd.image.name";
const OCI_NAME: &str = "org.opencontainers.image.ref.name";

/// An image that has been imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedImage {
    /// Full name.
    pub reference: String,
    /// Digest of the content.
    pub id: String,
    /// Bytes of all layers.
    pub size: u64,
}

impl ImageStore {
    /// Imports every image of a file or directory: an OCI layout, an archive of one, or what `docker save` writes, plain
    /// or compressed by gzip or zstd. An image without a name gets `name`, or the file's.
    pub async fn import(&self, path: &Path, name: Option<&str>) -> Result<Vec<ImportedImage>, ImageError> {
        let (store, path) = (self.clone(), path.to_owned());
        let name = name.map(str::to_owned);
        if let Some(name) = &name {
            parse(name)?;
        }
        blocking(move || import(&store.inner, &path, name.as_deref())).await
    }
}

fn import(store: &Inner, path: &Path, name: Option<&str>) -> Result<Vec<ImportedImage>, ImageError> {
    let _adding = store.adding.blocking_read();
    let shown = path.display().to_string();
    let metadata = fs::metadata(path).map_err(io_error(format!("read {shown}")))?;
    let unpacked;
    let files = if metadata.is_dir() {
        Files { root: path.to_owned(), links: BTreeMap::new(), shown }
    } else {
        unpacked = store.temporary().map_err(io_error(format!("read {shown}")))?;
        extract(path, unpacked.path(), store.config.limits.bytes, shown)?
    };
    let fallback = name.map_or_else(|| name_of(path), str::to_owned);
    let found = if files.has("oci-layout") || files.has("index.json") {
        layout(store, &files, &fallback)?
    } else if files.has("manifest.json") {
        docker(store, &files, &fallback)?
    } else {
        return Err(ImageError::corrupt(&files.shown, "neither an OCI layout nor what `docker save` writes"));
    };
    if found.is_empty() {
        return Err(ImageError::corrupt(&files.shown, "holds no image"));
    }
    store.index.insert(found.clone()).map_err(io_error("write the list of images"))?;
    Ok(found
        .into_iter()
        .map(|(reference, record)| ImportedImage { reference, id: record.id, size: record.size })
        .collect())
}

/// `dir/my-tool.tar.gz` is `my-tool:latest`.
fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let stem = ["tgz", "gz", "zst", "tar", "oci"].iter().fold(name.as_str(), |name, ending| {
        name.strip_suffix(ending).and_then(|n| n.strip_suffix('.')).unwrap_or(name)
    });
    let safe: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let safe = safe.trim_matches('-');
    format!("{}:latest", if safe.is_empty() { "imported" } else { safe })
}

/// The files of a layout or archive.
struct Files {
    root: PathBuf,
    /// Old archives of `docker save` hold a shared layer once and links to it.
    links: BTreeMap<PathBuf, PathBuf>,
    shown: String,
}

impl Files {
    fn path(&self, name: &str) -> Result<PathBuf, ImageError> {
        let mut path = normal(Path::new(name))
            .ok_or_else(|| ImageError::corrupt(&self.shown, format_args!("the path {name:?} climbs out of it")))?;
        for _ in 0..4 {
            match self.links.get(&path) {
                Some(target) => path.clone_from(target),
                None => break,
            }
        }
        Ok(self.root.join(path))
    }

    fn has(&self, name: &str) -> bool {
        self.root.join(name).is_file()
    }

    fn open(&self, name: &str) -> Result<File, ImageError> {
        let path = self.path(name)?;
        match File::open(&path) {
            Ok(file) if file.metadata().is_ok_and(|metadata| metadata.is_file()) => Ok(file),
            Ok(_) => Err(ImageError::corrupt(&self.shown, format_args!("{name} is no file"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(ImageError::corrupt(&self.shown, format_args!("{name} is missing; the file may be truncated")))
            }
            Err(error) => Err(io_error(format!("read {}", path.display()))(error)),
        }
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        let file = self.open(name)?;
        file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).map_err(io_error(format!("read {name}")))?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(ImageError::TooLarge { what: name.to_owned(), limit: format!("{MAX_DOCUMENT} bytes") });
        }
        Ok(bytes)
    }

    /// Small content by its digest, checked.
    fn blob(&self, digest: &str) -> Result<Vec<u8>, ImageError> {
        let wanted = manifest::digest_hex(digest, &self.shown)?;
        let bytes = self.document(&format!("blobs/sha256/{wanted}"))?;
        let found = hex(&Sha256::digest(&bytes));
        if found != wanted {
            return Err(ImageError::corrupt(
                &self.shown,
                format_args!("the content of {digest} has digest sha256:{found}"),
            ));
        }
        Ok(bytes)
    }
}

fn normal(path: &Path) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir => {
                if !out.pop() {
                    return None;
                }
            }
            Component::Prefix(_) => return None,
        }
    }
    Some(out)
}

/// Takes the files of an archive apart. Only files, directories and links among them are taken.
fn extract(path: &Path, into: &Path, limit: u64, shown: String) -> Result<Files, ImageError> {
    let file = File::open(path).map_err(io_error(format!("read {shown}")))?;
    let wrong = |error: io::Error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => io_error(format!("unpack {shown}"))(error),
        io::ErrorKind::UnexpectedEof => ImageError::corrupt(&shown, "ends too early; the file is truncated"),
        _ => ImageError::corrupt(&shown, format_args!("is no image archive: {error}")),
    };
    let plain = decompressed(BufReader::with_capacity(256 * 1024, file)).map_err(wrong)?;
    let mut archive = tar::Archive::new(plain.take(limit));
    let mut links = BTreeMap::new();
    let mut count = 0;
    for entry in archive.entries().map_err(wrong)? {
        let mut entry = entry.map_err(wrong)?;
        count += 1;
        if count > MAX_FILES {
            return Err(ImageError::TooLarge { what: shown, limit: format!("{MAX_FILES} files") });
        }
        let name = entry.path().map_err(wrong)?.into_owned();
        let Some(inside) = normal(&name).filter(|path| !path.as_os_str().is_empty()) else { continue };
        let kind = entry.header().entry_type();
        if kind.is_symlink() || kind.is_hard_link() {
            let target = entry.link_name().map_err(wrong)?.unwrap_or_default().into_owned();
            let from = if kind.is_symlink() { inside.parent().unwrap_or(Path::new("")) } else { Path::new("") };
            if let Some(target) = normal(&from.join(target)) {
                links.insert(inside, target);
            }
            continue;
        }
        if !kind.is_file() {
            continue;
        }
        let to = into.join(&inside);
        fs::create_dir_all(to.parent().unwrap_or(into)).map_err(wrong)?;
        let mut out = File::create(&to).map_err(wrong)?;
        let size = entry.size();
        if io::copy(&mut entry, &mut out).map_err(wrong)? != size {
            return Err(wrong(io::Error::from(io::ErrorKind::UnexpectedEof)));
        }
    }
    if count == 0 {
        return Err(ImageError::corrupt(&shown, "is no image archive"));
    }
    Ok(Files { root: into.to_owned(), links, shown })
}

fn layout(store: &Inner, files: &Files, fallback: &str) -> Result<Vec<(String, Record)>, ImageError> {
    let index: Document = manifest::parse(&files.document("index.json")?, &files.shown)?;
    let entries = index.manifests.unwrap_or_default();
    let mut by_name: BTreeMap<String, Vec<Descriptor>> = BTreeMap::new();
    for entry in entries {
        let name = entry.annotations.get(CONTAINERD_NAME).or_else(|| entry.annotations.get(OCI_NAME));
        let name = match name {
            // Some tools write a whole name, others a tag only.
            Some(name) if name.contains([':', '/']) => name.clone(),
            Some(tag) => format!("{}:{tag}", fallback.rsplit_once(':').map_or(fallback, |(name, _)| name)),
            None => fallback.to_owned(),
        };
        by_name.entry(name).or_default().push(entry);
    }
    let mut found = Vec::new();
    for (name, entries) in by_name {
        let name = parse(&name)?.whole();
        let mut chosen = manifest::choose(&entries, &name)?.clone();
        for _ in 0..MAX_DEPTH {
            let document: Document = manifest::parse(&files.blob(&chosen.digest)?, &name)?;
            let Some(entries) = document.manifests else {
                found.push((name.clone(), oci_image(store, files, &name, &chosen.digest, document)?));
                break;
            };
            chosen = manifest::choose(&entries, &name)?.clone();
        }
    }
    Ok(found)
}

fn oci_image(store: &Inner, files: &Files, name: &str, digest: &str, document: Document) -> Result<Record, ImageError> {
    let config = document.config.ok_or_else(|| ImageError::corrupt(name, "the manifest has no configuration"))?;
    let parsed: Config = manifest::parse(&files.blob(&config.digest)?, name)?;
    let layers = parsed.layers(name, document.layers.len())?;
    let mut size = 0;
    for (descriptor, diff_id) in document.layers.iter().zip(&layers) {
        let wanted = manifest::digest_hex(&descriptor.digest, name)?;
        size += descriptor.size;
        if store.layer(diff_id).is_dir() {
            continue;
        }
        let file = files.open(&format!("blobs/sha256/{wanted}"))?;
        store.add_layer(file, Some(wanted), diff_id, &format!("layer {}", descriptor.digest))?;
    }
    Ok(Record { id: config.digest, manifest: Some(digest.to_owned()), layers, config: parsed.defaults(), size })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

fn docker(store: &Inner, files: &Files, fallback: &str) -> Result<Vec<(String, Record)>, ImageError> {
    let saved: Vec<Saved> = manifest::parse(&files.document("manifest.json")?, &files.shown)?;
    let mut found = Vec::new();
    for image in saved {
        let names = image.repo_tags.filter(|tags| !tags.is_empty()).unwrap_or_else(|| vec![fallback.to_owned()]);
        let name = names.first().map_or(fallback, String::as_str);
        let bytes = files.document(&image.config)?;
        let config: Config = manifest::parse(&bytes, name)?;
        let layers = config.layers(name, image.layers.len())?;
        let mut size = 0;
        for (file, diff_id) in image.layers.iter().zip(&layers) {
            let opened = files.open(file)?;
            size += opened.metadata().map(|metadata| metadata.len()).unwrap_or(0);
            if !store.layer(diff_id).is_dir() {
                store.add_layer(opened, None, diff_id, &format!("layer {file} of {}", files.shown))?;
            }
        }
        let id = format!("sha256:{}", hex(&Sha256::digest(&bytes)));
        let record = Record { id, manifest: None, layers, config: config.defaults(), size };
        for name in &names {
            found.push((parse(name)?.whole(), record.clone()));
        }
    }
    Ok(found)
}
