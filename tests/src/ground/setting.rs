//! Where a cluster with the platform is, as `cargo xtask e2e` writes it down for the suite.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// A cluster on which the platform is installed.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Setting {
    /// How the cluster is reached.
    pub kubeconfig: PathBuf,
    /// Name of the helm release.
    pub release: String,
    /// Namespace of the platform's own pods.
    pub platform_namespace: String,
    /// Namespace of sandboxes and pools.
    pub namespace: String,
    /// The chart it was installed from.
    pub chart: PathBuf,
    /// The values it was installed with.
    pub values: PathBuf,
    /// A tag under which the nodes have the same images again, to upgrade to.
    pub next_tag: Option<String>,
    /// Name of the kind cluster, where its nodes are containers of the docker engine that `docker` speaks to.
    pub kind: Option<String>,
    /// A shell command to run after a stopped node was started, where the pod network does not mend itself.
    pub node_started: Option<String>,
    /// Path of the API server's audit log on the control plane's node.
    pub audit_log: Option<String>,
    /// Directory for what tells of failures.
    pub evidence: PathBuf,
}

impl Setting {
    /// Reads a setting.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("in {}", path.display()))
    }
}
