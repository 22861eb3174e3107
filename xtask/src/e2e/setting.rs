//! Where the platform is, as the suite reads it.

use std::path::Path;

use serde::Serialize;

/// What the suite has to know of a cluster; `e2e::ground::Setting` reads it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Setting<'a> {
    /// How the cluster is reached.
    pub kubeconfig: &'a Path,
    /// Name of the helm release.
    pub release: &'a str,
    /// Namespace of the platform's own pods.
    pub platform_namespace: &'a str,
    /// Namespace of sandboxes and pools.
    pub namespace: &'a str,
    /// The chart it was installed from.
    pub chart: &'a Path,
    /// The values it was installed with.
    pub values: &'a Path,
    /// A tag under which the nodes have the same images again.
    pub next_tag: Option<&'a str>,
    /// Name of the kind cluster.
    pub kind: Option<&'a str>,
    /// A shell command to run after a node was started.
    pub node_started: Option<&'a str>,
    /// Path of the audit log on the control plane's node.
    pub audit_log: Option<String>,
    /// Directory for what tells of failures.
    pub evidence: &'a Path,
}
