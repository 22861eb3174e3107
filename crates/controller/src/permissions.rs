//! What the controller asks of the API server, verb by verb, and whether it may.

use std::time::Duration;

use api_types::names::GROUP;
use kube::Client;
use telemetry::Check;
use telemetry::kubernetes::{self, Rule};

use crate::LeaderElection;

/// Time between two rounds of questions while something is missing.
const AGAIN: Duration = Duration::from_secs(30);

/// Everything the controller does in the namespaces it looks after. The chart's roles grant this and nothing else.
pub const RULES: [Rule; 6] = [
    // Keeps pods of pools and sandboxes; get settles a write whose answer was lost; patch labels a pod with its holder.
    Rule::of_all("", "pods", &["list", "watch", "get", "create", "delete", "patch"]),
    // Tells what happened; patch counts what repeats.
    Rule::of_all("", "events", &["create", "patch"]),
    // Get reads a pool again after a conflict.
    Rule::of_all(GROUP, "pools", &["list", "watch", "get"]),
    // Writes the status it has read.
    Rule::of_all(GROUP, "pools/status", &["update"]),
    // Patch sets finalizers and annotations; delete ends what has expired.
    Rule::of_all(GROUP, "batchsandboxes", &["list", "watch", "get", "patch", "delete"]),
    // Grants pods, conditionally.
    Rule::of_all(GROUP, "batchsandboxes/status", &["update"]),
];

/// What the leader election asks for, in the Lease's namespace: one leads, and watch lets a standby lead as soon as the
/// lease is free. A role may be held to the one Lease.
pub const LEASE_RULES: [Rule; 1] = [Rule {
    group: "coordination.k8s.io",
    resource: "leases",
    verbs: &["get", "create", "update", "watch"],
    name: Some(LeaderElection::LEASE_NAME),
}];

/// Asks the API server about every verb until all are granted, and tells `check` which are not.
pub(crate) async fn verify(client: &Client, namespaces: &[String], lease_namespace: Option<&str>, check: &Check) {
    loop {
        match missing(client, namespaces, lease_namespace).await {
            Ok(missing) if missing.is_empty() => return check.pass(),
            Ok(missing) => {
                let text = format!("not granted: {}; install the chart's RBAC", missing.join("; "));
                tracing::warn!("{text}");
                check.fail(text);
            }
            Err(error) => check.fail(format!("asking which verbs are granted: {error}")),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// The verbs that are not granted, each with its resource and namespace.
async fn missing(client: &Client, namespaces: &[String], lease: Option<&str>) -> kube::Result<Vec<String>> {
    let mut missing = Vec::new();
    if namespaces.is_empty() {
        missing.extend(kubernetes::missing(client, None, &RULES).await?);
    }
    for namespace in namespaces {
        missing.extend(kubernetes::missing(client, Some(namespace), &RULES).await?);
    }
    if let Some(namespace) = lease {
        missing.extend(kubernetes::missing(client, Some(namespace), &LEASE_RULES).await?);
    }
    Ok(missing)
}
