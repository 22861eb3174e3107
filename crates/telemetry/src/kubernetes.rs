//! What programs tell of their dealings with Kubernetes: which rights are missing, and what a broken watch means.

use std::time::Duration;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::api::{Api, PostParams};
use kube::runtime::watcher;
use kube::{Client, Error};

use crate::chain;

/// What to do where CRDs are missing or old.
pub const INSTALL_CRDS: &str = "install the CRDs of this version: kubectl apply --server-side -f charts/opensandbox/crds, or helm upgrade --install";

/// How long one question about a right may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Verbs on one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// API group; empty is the core.
    pub group: &'static str,
    /// Resource, with its subresource behind a slash.
    pub resource: &'static str,
    /// Verbs.
    pub verbs: &'static [&'static str],
    /// The one object it is about, where a role may be held to it; a create names no object yet.
    pub name: Option<&'static str>,
}

impl Rule {
    /// Verbs on every object of a resource.
    pub const fn of_all(group: &'static str, resource: &'static str, verbs: &'static [&'static str]) -> Self {
        Self { group, resource, verbs, name: None }
    }
}

/// The rights of `rules` that are not granted in a namespace (absent: in all), each as `verbs of resource in place`.
///
/// An API server that refuses the question itself, or does not know it, tells of no missing right; the calls that need
/// it will.
///
/// # Errors
///
/// When the API server can't be reached, fails, or does not answer one question within ten seconds.
pub async fn missing(client: &Client, namespace: Option<&str>, rules: &[Rule]) -> kube::Result<Vec<String>> {
    let mut missing = Vec::new();
    for rule in rules {
        let mut verbs = Vec::new();
        for verb in rule.verbs {
            if !allowed(client, namespace, rule, verb).await? {
                verbs.push(*verb);
            }
        }
        if !verbs.is_empty() {
            let group = if rule.group.is_empty() { String::new() } else { format!(".{}", rule.group) };
            missing.push(format!("{} of {}{group} in {}", verbs.join(", "), rule.resource, place(namespace)));
        }
    }
    Ok(missing)
}

async fn allowed(client: &Client, namespace: Option<&str>, rule: &Rule, verb: &str) -> kube::Result<bool> {
    let (resource, subresource) = match rule.resource.split_once('/') {
        Some((resource, sub)) => (resource, Some(sub.to_owned())),
        None => (rule.resource, None),
    };
    let attributes = ResourceAttributes {
        namespace: namespace.map(str::to_owned),
        verb: Some(verb.to_owned()),
        name: rule.name.filter(|_| verb != "create").map(str::to_owned),
        group: Some(rule.group.to_owned()),
        resource: Some(resource.to_owned()),
        subresource,
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    let review = SelfSubjectAccessReview { spec, ..Default::default() };
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    match tokio::time::timeout(DEADLINE, api.create(&PostParams::default(), &review)).await {
        Ok(Ok(answer)) => Ok(answer.status.is_none_or(|status| status.allowed)),
        Ok(Err(Error::Api(status))) if matches!(status.code, 403 | 404) => Ok(true),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(Error::Service("no answer in time".into())),
    }
}

fn place(namespace: Option<&str>) -> String {
    namespace.map_or_else(|| "all namespaces".to_owned(), |namespace| format!("namespace {namespace}"))
}

/// What is wrong with a watch, and whether waiting alone may mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchTrouble {
    /// One sentence with what to do.
    pub message: String,
    /// Somebody has to do something.
    pub lasting: bool,
}

/// Reads the error of a watch on a resource (`plural.group`, the group absent for the core) in a namespace (absent: in
/// all).
pub fn watch_trouble(error: &watcher::Error, plural: &str, group: &str, namespace: Option<&str>) -> WatchTrouble {
    let (code, words) = match error {
        watcher::Error::InitialListFailed(Error::Api(status))
        | watcher::Error::WatchStartFailed(Error::Api(status))
        | watcher::Error::WatchFailed(Error::Api(status)) => (Some(status.code), status.message.clone()),
        watcher::Error::WatchError(status) => (Some(status.code), status.message.clone()),
        other => (None, chain(other)),
    };
    let resource = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
    let place = place(namespace);
    let lasting = |message: String| WatchTrouble { message, lasting: true };
    match code {
        Some(404) if !group.is_empty() => lasting(format!("the CRD {resource} is missing: {INSTALL_CRDS}")),
        Some(403) => {
            lasting(format!("{resource} in {place} may not be listed and watched: {words}; install the chart's RBAC"))
        }
        Some(401) => {
            lasting("the API server does not take our credentials: check the service account's token".to_owned())
        }
        Some(code) => WatchTrouble {
            message: format!("{resource} in {place}: the API server answers {code}: {words}"),
            lasting: false,
        },
        None => WatchTrouble {
            message: format!("{resource} in {place}: the API server can't be reached: {words}"),
            lasting: false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16) -> WatchTrouble {
        let mut status = kube::core::Status::failure("words of Kubernetes", "");
        status.code = code;
        let error = watcher::Error::InitialListFailed(Error::Api(Box::new(status)));
        watch_trouble(&error, "pools", "sandbox.opensandbox.io", Some("team-a"))
    }

    #[test]
    fn what_is_missing_is_named() {
        let crd = refused(404);
        assert!(crd.lasting && crd.message.contains("pools.sandbox.opensandbox.io"), "{crd:?}");
        let right = refused(403);
        assert!(right.lasting && right.message.contains("namespace team-a"), "{right:?}");
        let passing = refused(500);
        assert!(!passing.lasting && passing.message.contains("words of Kubernetes"), "{passing:?}");
    }
}
