//! What an uninstalled platform must not leave behind.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::kubectl::Kubectl;
use super::tool::wait;

/// How long pods may take to end.
const LIMIT: Duration = Duration::from_secs(180);

/// Fails with the names of what is left on the cluster.
pub fn check(kubectl: &Kubectl) -> Result<()> {
    wait("the cluster is as it was", LIMIT, || none(kubectl).map(|()| true))
}

fn none(kubectl: &Kubectl) -> Result<()> {
    let mut left = Vec::new();
    for (kinds, selector) in [
        ("pods", "sandbox.opensandbox.io/pool-name"),
        ("pods", "batch-sandbox.sandbox.opensandbox.io/name"),
        (
            "pods,services,deployments,configmaps,secrets,serviceaccounts,roles,rolebindings,networkpolicies,leases,jobs",
            "app.kubernetes.io/part-of=opensandbox",
        ),
    ] {
        let words = ["get", kinds, "--all-namespaces", "-l", selector, "-o", "name", "--ignore-not-found"];
        left.extend(kubectl.said(&words, "")?.lines().map(str::to_owned));
    }
    let all = "clusterroles,clusterrolebindings,customresourcedefinitions,namespaces,priorityclasses";
    let named = kubectl.said(&["get", all, "-o", "name", "--ignore-not-found"], "")?;
    left.extend(named.lines().filter(|name| name.contains("opensandbox")).map(str::to_owned));
    ensure!(left.is_empty(), "left on the cluster after the uninstallation: {}", left.join(", "));
    Ok(())
}
