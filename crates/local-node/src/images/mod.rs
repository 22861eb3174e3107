//! Images: where a container's file system comes from.

mod error;
mod guest;
mod host;
mod import;
mod index;
mod manifest;
mod pull;
mod store;
mod unpack;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use error::ImageError;
pub use import::ImportedImage;
pub use pull::Credentials;
pub use store::{ImageStore, ListedImage};
pub use unpack::Limits;

/// When an image is looked for in its registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// When it is not here.
    IfNotPresent,
    /// Never.
    Never,
}

impl PullPolicy {
    /// Kubernetes' default where the pod says nothing: `Always` for the tag `latest`, else `IfNotPresent`.
    pub fn of(given: Option<&str>, reference: &str) -> Self {
        match given {
            Some("Always") => Self::Always,
            Some("Never") => Self::Never,
            Some("IfNotPresent") => Self::IfNotPresent,
            _ => match reference.parse::<oci_client::Reference>() {
                Ok(parsed) if parsed.digest().is_none() && parsed.tag().is_none_or(|tag| tag == "latest") => {
                    Self::Always
                }
                _ => Self::IfNotPresent,
            },
        }
    }
}

/// What an image says about running it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageDefaults {
    /// `ENV`, `NAME=value` each.
    pub env: Vec<String>,
    /// `ENTRYPOINT`.
    pub entrypoint: Vec<String>,
    /// `CMD`.
    pub command: Vec<String>,
    /// `WORKDIR`.
    pub working_dir: Option<String>,
    /// `USER`.
    pub user: Option<String>,
    /// `STOPSIGNAL`.
    pub stop_signal: Option<String>,
}

/// A path of this machine that is part of an image, read-only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostBind {
    /// On the host.
    pub source: PathBuf,
    /// In the container.
    pub target: PathBuf,
}

/// An image that containers can start from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Full name: registry, repository, tag or digest.
    pub reference: String,
    /// Digest that identifies the content.
    pub id: String,
    /// Lower directories for overlayfs, uppermost first.
    pub lower: Vec<PathBuf>,
    /// Read-only binds above them, before any volume, in this order.
    pub binds: Vec<HostBind>,
    /// What it says about running it.
    pub config: ImageDefaults,
    /// Bytes.
    pub size: u64,
    /// Whether this machine stands in for the image that was asked for.
    pub stand_in: bool,
}

/// How far a pull is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// Layers that are here.
    pub layers_done: usize,
    /// Layers of the image; 0 until known.
    pub layers: usize,
    /// Bytes that have come.
    pub bytes_done: u64,
    /// Bytes in all.
    pub bytes: u64,
}

/// Where images are kept and where they come from.
#[derive(Debug, Clone)]
pub struct ImageConfig {
    /// The store's directory.
    pub root: PathBuf,
    /// Directory that holds the programs `execd` and `task-executor`.
    pub guest_dir: PathBuf,
    /// What stands in for an image: its name, or `*` for every one that cannot be had, and `host`.
    ///
    /// A name's stand-in is used at once where the image is not here; that of `*` only after a pull has failed.
    pub stand_ins: BTreeMap<String, String>,
    /// Registries that are spoken to without TLS, as `host:port`; those on loopback always are.
    pub plain_http: Vec<String>,
    /// Certificates, as PEM, that registries may be known by beside those that the machine trusts.
    pub extra_roots: Vec<Vec<u8>>,
    /// Longest time to wait for a connection, and between two pieces of an answer.
    pub connect_timeout: Duration,
    /// Longest time that a pull takes in all.
    pub pull_timeout: Duration,
    /// Largest layer.
    pub limits: Limits,
}

impl ImageConfig {
    /// The defaults for these two directories.
    pub fn new(root: impl Into<PathBuf>, guest_dir: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            guest_dir: guest_dir.into(),
            stand_ins: BTreeMap::new(),
            plain_http: Vec::new(),
            extra_roots: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            pull_timeout: Duration::from_secs(30 * 60),
            limits: Limits::default(),
        }
    }
}

#[cfg(test)]
mod tests;
