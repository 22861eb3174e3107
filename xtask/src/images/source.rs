//! What the images are made from: version, commit, and the time they claim.

use std::process::Command;

use anyhow::{Context, Result};
use cargo_metadata::Metadata;
use jiff::Timestamp;

use crate::cargo;

/// Where an image comes from, as its labels say it.
#[derive(Clone)]
pub struct Source {
    /// The workspace's version.
    pub version: String,
    /// The workspace's licence.
    pub license: String,
    /// The workspace's repository.
    pub repository: String,
    /// The commit, `-dirty` behind it where files differ; absent without git.
    pub revision: Option<String>,
    /// RFC 3339: `SOURCE_DATE_EPOCH`, else the commit's time, else 1970.
    pub created: String,
}

impl Source {
    /// Asks cargo, git and the environment.
    pub fn find(metadata: &Metadata) -> Result<Self> {
        let package = metadata
            .workspace_packages()
            .into_iter()
            .find(|package| package.name == env!("CARGO_PKG_NAME"))
            .context("cargo metadata does not know this package")?;
        let epoch = match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(text) => text.trim().parse().with_context(|| format!("SOURCE_DATE_EPOCH {text:?} is no number"))?,
            Err(_) => git(&["log", "-1", "--format=%ct"]).and_then(|text| text.parse().ok()).unwrap_or(0),
        };
        let created = Timestamp::from_second(epoch).context("SOURCE_DATE_EPOCH is out of range")?;
        Ok(Self {
            version: package.version.to_string(),
            license: package.license.clone().unwrap_or_default(),
            repository: metadata
                .workspace_packages()
                .iter()
                .find_map(|package| package.repository.clone())
                .unwrap_or_default(),
            revision: git(&["describe", "--always", "--exclude=*", "--abbrev=40", "--dirty"]),
            created: created.to_string(),
        })
    }

    /// The version as an image's tag, where `+` is not allowed.
    pub fn tag(&self) -> String {
        self.version.replace('+', "-")
    }
}

/// What a git command prints, if there is git and this is a checkout.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).current_dir(cargo::root()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
