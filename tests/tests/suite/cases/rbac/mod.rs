//! The roles of the platform against what it really asks the API server for.

mod audit;
mod granted;

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use e2e::ground::Ground;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;

/// One thing that an account may do, or did.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// Service account.
    pub account: String,
    /// API group; the core group is empty.
    pub group: String,
    /// `resource`, or `resource/subresource`.
    pub resource: String,
    /// Kubernetes' verb.
    pub verb: String,
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dot = if self.group.is_empty() { "" } else { "." };
        write!(f, "{}: {} {}{dot}{}", self.account, self.verb, self.resource, self.group)
    }
}

/// What is granted although a run does not use it: account, verb, resource, why.
const KEPT: &[(&str, &str, &str, &str)] = &[
    ("opensandbox-controller-manager", "get", "pods", "settles a write whose answer was lost, which few runs have"),
    (
        "opensandbox-controller-manager",
        "get",
        "pools.sandbox.opensandbox.io",
        "reads a pool again after a conflict, which few runs have",
    ),
    ("opensandbox-controller-manager", "patch", "events", "counts an event that repeats, which few runs have"),
];

/// Whether the log's reader sees what it must see.
pub fn check_audit() -> Result<(), String> {
    audit::check()
}

pub async fn every_verb_granted_is_used_and_none_used_is_refused(ground: &Ground) -> Result<()> {
    let cluster = ground.cluster().context("this case needs a cluster")?;
    let setting = cluster.setting();
    let namespaces: Api<Namespace> = Api::all(cluster.client());
    let begun = namespaces.get(&setting.platform_namespace).await?.metadata.creation_timestamp;
    let begun = begun.context("a namespace has a creation time")?.0;
    let path = setting.audit_log.as_deref().context("there is no audit log")?;
    let nodes = cluster.nodes()?;
    let log = nodes.shell(&nodes.control_plane()?, &format!("cat {path}"))?;
    let used = audit::read(&log, &setting.platform_namespace, begun);
    ensure!(used.refused.is_empty(), "refused by the API server: {:#?}", used.refused);
    let granted = granted::read(&cluster.client(), &setting.platform_namespace).await?;

    let unused: BTreeSet<&Right> = granted.difference(&used.rights).collect();
    let kept = |right: &Right| {
        KEPT.iter().find(|(account, verb, resource, _)| {
            (right.account.as_str(), right.verb.as_str(), right.resource.as_str()) == (*account, *verb, *resource)
        })
    };
    println!("{} rights are granted, {} are used", granted.len(), used.rights.intersection(&granted).count());
    for (right, (.., why)) in unused.iter().filter_map(|right| Some((right, kept(right)?))) {
        println!("not used and kept: {right}: {why}");
    }
    let unused: Vec<String> = unused.iter().filter(|right| kept(right).is_none()).map(ToString::to_string).collect();
    if crate::whole_run() {
        ensure!(unused.is_empty(), "granted, and used by nobody in a whole run: {unused:#?}");
    } else if !unused.is_empty() {
        println!("not used in this part of the suite: {unused:#?}");
    }
    // Whoever is an administrator by another binding would use more than is granted here.
    let more: Vec<String> = used.rights.difference(&granted).map(ToString::to_string).collect();
    ensure!(more.is_empty(), "used by another right than the chart's: {more:#?}");
    Ok(())
}
