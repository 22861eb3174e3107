//! What the controller asks of the API server, verb by verb, and whether it may.

use std::time::Duration;

use api_types::names::GROUP;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::api::{Api, PostParams};
use kube::{Client, Error};
use telemetry::Check;

use crate::LeaderElection;

/// How long one question may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// Time between two rounds of questions while something is missing.
const AGAIN: Duration = Duration::from_secs(30);

/// Verbs on one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// API group; empty is the core.
    pub group: &'static str,
    /// Resource, with its subresource.
    pub resource: &'static str,
    /// Verbs.
    pub verbs: &'static [&'static str],
    /// What they are for.
    pub why: &'static str,
}

/// Everything the controller does in the namespaces it looks after. The chart's roles grant this and nothing else.
pub const RULES: [Rule; 6] = [
    Rule {
        group: "",
        resource: "pods",
        verbs: &["list", "watch", "get", "create", "delete", "patch"],
        why: "keeps pods of pools and sandboxes; get settles a write whose answer was lost; patch labels a pod with its holder",
    },
    Rule {
        group: "",
        resource: "events",
        verbs: &["create", "patch"],
        why: "tells what happened; patch counts what repeats",
    },
    Rule {
        group: GROUP,
        resource: "pools",
        verbs: &["list", "watch", "get"],
        why: "get reads a pool again after a conflict",
    },
    Rule { group: GROUP, resource: "pools/status", verbs: &["update"], why: "writes the status it has read" },
    Rule {
        group: GROUP,
        resource: "batchsandboxes",
        verbs: &["list", "watch", "get", "patch", "delete"],
        why: "patch sets finalizers and annotations; delete ends what has expired",
    },
    Rule { group: GROUP, resource: "batchsandboxes/status", verbs: &["update"], why: "grants pods, conditionally" },
];

/// What the leader election asks for, in the Lease's namespace.
pub const LEASE_RULES: [Rule; 1] = [Rule {
    group: "coordination.k8s.io",
    resource: "leases",
    verbs: &["get", "create", "update", "watch"],
    why: "one leads; watch lets a standby lead as soon as the lease is free",
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
            // Who may not even ask is told by the watches and writes what else is missing.
            Err(Error::Api(status)) if status.code == 403 || status.code == 404 => return check.pass(),
            Err(error) => check.fail(format!("asking which verbs are granted: {error}")),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// The verbs that are not granted, each with its resource and namespace.
async fn missing(client: &Client, namespaces: &[String], lease: Option<&str>) -> kube::Result<Vec<String>> {
    let mut missing = Vec::new();
    let everywhere = [String::new()];
    let namespaces = if namespaces.is_empty() { &everywhere[..] } else { namespaces };
    let in_namespaces = namespaces.iter().flat_map(|n| RULES.iter().map(move |rule| (n.as_str(), rule)));
    let in_lease = lease.iter().flat_map(|n| LEASE_RULES.iter().map(move |rule| (*n, rule)));
    // Collected: a chain of closures held over the requests would keep the future from being sent to another thread.
    let asked: Vec<(&str, &Rule)> = in_namespaces.chain(in_lease).collect();
    for (namespace, rule) in asked {
        let mut verbs = Vec::new();
        for verb in rule.verbs {
            if !allowed(client, namespace, rule, verb).await? {
                verbs.push(*verb);
            }
        }
        if !verbs.is_empty() {
            let place =
                if namespace.is_empty() { "all namespaces".to_owned() } else { format!("namespace {namespace}") };
            let group = if rule.group.is_empty() { String::new() } else { format!(".{}", rule.group) };
            missing.push(format!("{} of {}{group} in {place}", verbs.join(", "), rule.resource));
        }
    }
    Ok(missing)
}

async fn allowed(client: &Client, namespace: &str, rule: &Rule, verb: &str) -> kube::Result<bool> {
    let (resource, subresource) = match rule.resource.split_once('/') {
        Some((resource, sub)) => (resource, Some(sub.to_owned())),
        None => (rule.resource, None),
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                namespace: Some(namespace.to_owned()).filter(|n| !n.is_empty()),
                verb: Some(verb.to_owned()),
                // A role may be held to the one Lease; a create names no object yet.
                name: (rule.resource == "leases" && verb != "create").then(|| LeaderElection::LEASE_NAME.to_owned()),
                group: Some(rule.group.to_owned()),
                resource: Some(resource.to_owned()),
                subresource,
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    match tokio::time::timeout(DEADLINE, api.create(&PostParams::default(), &review)).await {
        Ok(answer) => Ok(answer?.status.is_some_and(|s| s.allowed)),
        Err(_) => Err(Error::Service("no answer in time".into())),
    }
}
