//! The API server's audit log, read for what each service account asked.

use jiff::Timestamp;
use serde::Deserialize;

/// One request of a service account about an object.
#[derive(Debug, Clone)]
pub struct Asked {
    /// When the API server received it.
    pub at: Timestamp,
    /// How far it was when this was written, such as `ResponseComplete`.
    pub stage: String,
    /// Namespace of the account.
    pub namespace: String,
    /// Name of the account.
    pub account: String,
    /// Kubernetes' verb.
    pub verb: String,
    /// API group; the core group is empty.
    pub group: String,
    /// `resource`, or `resource/subresource`.
    pub resource: String,
    /// Whether it was forbidden.
    pub forbidden: bool,
}

/// The part of an `audit.k8s.io/v1` Event that is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    stage: String,
    verb: String,
    user: User,
    object_ref: Option<ObjectRef>,
    request_received_timestamp: Timestamp,
    #[serde(default)]
    annotations: Annotations,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectRef {
    #[serde(default)]
    resource: String,
    subresource: Option<String>,
    #[serde(default)]
    api_group: String,
}

#[derive(Default, Deserialize)]
struct Annotations {
    #[serde(default, rename = "authorization.k8s.io/decision")]
    decision: String,
}

/// The requests of a log, in its order. What is no object, such as the version and the health, is left out.
pub fn read(log: &str) -> impl Iterator<Item = Asked> {
    // The line that the server is writing may be cut.
    log.lines().filter_map(|line| serde_json::from_str::<Event>(line).ok()).filter_map(|event| {
        let (namespace, account) = event.user.username.strip_prefix("system:serviceaccount:")?.split_once(':')?;
        let object = event.object_ref?;
        Some(Asked {
            at: event.request_received_timestamp,
            stage: event.stage,
            namespace: namespace.to_owned(),
            account: account.to_owned(),
            verb: event.verb,
            group: object.api_group,
            resource: match object.subresource {
                Some(subresource) => format!("{}/{subresource}", object.resource),
                None => object.resource,
            },
            forbidden: event.annotations.decision == "forbid",
        })
    })
}
