//! Manifests, indexes and configurations of images, as OCI and Docker write them.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::{ImageDefaults, ImageError};

/// Largest manifest, index or configuration.
pub(super) const MAX_DOCUMENT: u64 = 8 * 1024 * 1024;
/// Most layers of an image: overlayfs' options must fit a page.
pub(super) const MAX_LAYERS: usize = 128;

fn lenient<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A reference to content by its digest.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: String,
    #[serde(default)]
    pub size: u64,
    #[serde(default, deserialize_with = "lenient")]
    pub annotations: BTreeMap<String, String>,
    pub platform: Option<Platform>,
}

/// The machines that content is for.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
pub(super) struct Platform {
    pub architecture: String,
    pub os: String,
    pub variant: Option<String>,
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl Platform {
    /// This machine.
    pub fn here() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            other => other,
        };
        Self { architecture: architecture.to_owned(), os: "linux".to_owned(), variant: None }
    }

    /// Whether this machine runs it. Variants of one architecture are told apart only on 32-bit ARM.
    pub fn fits(&self, wanted: &Self) -> bool {
        self.architecture == wanted.architecture && self.os == wanted.os
    }
}

/// An index or a manifest: which one is told by what it holds.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Document {
    pub manifests: Option<Vec<Descriptor>>,
    pub config: Option<Descriptor>,
    #[serde(default, deserialize_with = "lenient")]
    pub layers: Vec<Descriptor>,
}

/// A configuration, as far as the node needs it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Config {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default, deserialize_with = "lenient")]
    config: Execution,
    #[serde(default, deserialize_with = "lenient")]
    rootfs: RootFs,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Execution {
    #[serde(deserialize_with = "lenient")]
    env: Vec<String>,
    #[serde(deserialize_with = "lenient")]
    entrypoint: Vec<String>,
    #[serde(deserialize_with = "lenient")]
    cmd: Vec<String>,
    working_dir: Option<String>,
    user: Option<String>,
    stop_signal: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct RootFs {
    #[serde(default, deserialize_with = "lenient")]
    diff_ids: Vec<String>,
}

/// Reads a document; `what` names it in errors.
pub(super) fn parse<T: for<'de> Deserialize<'de>>(bytes: &[u8], what: &str) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|error| ImageError::corrupt(what, error))
}

impl Config {
    /// What the image says about running it.
    pub fn defaults(&self) -> ImageDefaults {
        let text = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        ImageDefaults {
            env: self.config.env.clone(),
            entrypoint: self.config.entrypoint.clone(),
            command: self.config.cmd.clone(),
            working_dir: text(&self.config.working_dir),
            user: text(&self.config.user),
            stop_signal: text(&self.config.stop_signal),
        }
    }

    /// Digests of the layers before compression, in hexadecimal, after checks that they can be had.
    pub fn layers(&self, reference: &str, count: usize) -> Result<Vec<String>, ImageError> {
        let here = Platform::here();
        let own = Platform { architecture: self.architecture.clone(), os: self.os.clone(), variant: None };
        if !self.architecture.is_empty() && !own.fits(&here) {
            return Err(ImageError::Platform {
                reference: reference.to_owned(),
                wanted: here.to_string(),
                found: own.to_string(),
            });
        }
        let ids = &self.rootfs.diff_ids;
        if ids.len() != count || ids.len() > MAX_LAYERS {
            return Err(ImageError::corrupt(
                reference,
                format!("{} layers where the configuration names {}, of at most {MAX_LAYERS}", count, ids.len()),
            ));
        }
        ids.iter().map(|id| digest_hex(id, reference).map(str::to_owned)).collect()
    }
}

/// The hexadecimal part of a SHA-256 digest, safe as a file's name.
pub(super) fn digest_hex<'a>(digest: &'a str, what: &str) -> Result<&'a str, ImageError> {
    digest
        .strip_prefix("sha256:")
        .filter(|hex| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
        .ok_or_else(|| ImageError::corrupt(what, format_args!("{digest:?} is no SHA-256 digest")))
}

/// The entry for this machine.
pub(super) fn choose<'a>(entries: &'a [Descriptor], reference: &str) -> Result<&'a Descriptor, ImageError> {
    let here = Platform::here();
    let for_some_machine = |entry: &&Descriptor| entry.platform.as_ref().is_none_or(|p| p.os != "unknown");
    entries
        .iter()
        .find(|entry| entry.platform.as_ref().is_some_and(|platform| platform.fits(&here)))
        .or_else(|| entries.iter().find(|entry| entry.platform.is_none()))
        .ok_or_else(|| {
            let found: Vec<String> = entries
                .iter()
                .filter(for_some_machine)
                .filter_map(|entry| entry.platform.as_ref().map(Platform::to_string))
                .collect();
            ImageError::Platform {
                reference: reference.to_owned(),
                wanted: here.to_string(),
                found: if found.is_empty() { "no machine at all".to_owned() } else { found.join(", ") },
            }
        })
}
