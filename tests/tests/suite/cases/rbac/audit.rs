//! The API server's audit log, read for what each of our accounts asked.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Deserialize;

use super::Right;

/// What was asked.
#[derive(Debug, Default)]
pub struct Used {
    /// What was allowed.
    pub rights: BTreeSet<Right>,
    /// What was not.
    pub refused: BTreeSet<Right>,
}

/// The part of an `audit.k8s.io/v1` Event that is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
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

/// Reads what the accounts of a namespace asked since a moment.
pub fn read(log: &str, namespace: &str, since: Timestamp) -> Used {
    let mut used = Used::default();
    for line in log.lines() {
        // The line that the server is writing may be cut.
        let Ok(event) = serde_json::from_str::<Event>(line) else { continue };
        let account = event.user.username.strip_prefix("system:serviceaccount:").and_then(|name| name.split_once(':'));
        // What is no object is the version and the health, which everybody may ask for.
        let (Some((of, account)), Some(object)) = (account, event.object_ref) else { continue };
        // Reviews of the own rights are allowed to everybody, too.
        if of != namespace || event.request_received_timestamp < since || object.api_group == "authorization.k8s.io" {
            continue;
        }
        let resource = match object.subresource {
            Some(subresource) => format!("{}/{subresource}", object.resource),
            None => object.resource,
        };
        let right = Right { account: account.to_owned(), group: object.api_group, resource, verb: event.verb };
        match event.annotations.decision.as_str() {
            "forbid" => used.refused.insert(right),
            _ => used.rights.insert(right),
        };
    }
    used
}

/// Reads a made-up log, so that the reader is known to see what it must see.
pub fn check() -> Result<(), String> {
    let line = |verb: &str, user: &str, at: &str, decision: &str| {
        serde_json::json!({
            "stage": "ResponseComplete", "verb": verb, "user": {"username": format!("system:serviceaccount:{user}")},
            "objectRef": {"resource": "pools", "subresource": "status", "apiGroup": "sandbox.opensandbox.io"},
            "requestReceivedTimestamp": at, "annotations": {"authorization.k8s.io/decision": decision},
        })
        .to_string()
    };
    let (early, late) = ("2026-01-01T00:00:00.000000Z", "2026-01-01T00:00:02.000000Z");
    let log = [
        line("update", "ours:controller", late, "allow"),
        line("delete", "ours:controller", late, "forbid"),
        line("patch", "ours:controller", early, "allow"),
        line("get", "theirs:controller", late, "allow"),
        "{\"verb\":\"cut".to_owned(),
    ];
    let since = "2026-01-01T00:00:01Z".parse().map_err(|error| format!("{error}"))?;
    let used = read(&log.join("\n"), "ours", since);
    let told = |rights: &BTreeSet<Right>| rights.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let (rights, refused) = (told(&used.rights), told(&used.refused));
    let wanted = |verb| format!("controller: {verb} pools/status.sandbox.opensandbox.io");
    if rights != wanted("update") || refused != wanted("delete") {
        return Err(format!("used {rights}, refused {refused}"));
    }
    Ok(())
}
