//! The API server's audit log, read for who wrote what.

use std::collections::BTreeMap;
use std::io::BufRead;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::Deserialize;

/// One kind of write.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Write {
    /// Who: the last part of a service account's name, or the whole name of another user.
    pub account: String,
    /// Kubernetes' verb.
    pub verb: String,
    /// `resource`, or `resource/subresource`.
    pub resource: String,
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
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Deserialize)]
struct ObjectRef {
    #[serde(default)]
    resource: String,
    subresource: Option<String>,
}

/// Counts the writes of the platform's accounts between two moments.
///
/// Leases are left out: they are renewed by time, not by sandboxes.
pub fn writes(log: impl BufRead, from: Timestamp, to: Timestamp) -> Result<BTreeMap<Write, usize>> {
    let mut counts = BTreeMap::new();
    for line in log.lines() {
        // The line that the server is writing may be cut.
        let Ok(event) = serde_json::from_str::<Event>(&line.context("cannot read the audit log")?) else { continue };
        let within = (from..=to).contains(&event.request_received_timestamp);
        let writes = ["create", "update", "patch", "delete", "deletecollection"].contains(&event.verb.as_str());
        let (true, true, "ResponseComplete", Some(object)) = (within, writes, event.stage.as_str(), event.object_ref)
        else {
            continue;
        };
        let Some(account) = event.user.username.strip_prefix("system:serviceaccount:") else { continue };
        let (_, account) = account.split_once(':').unwrap_or(("", account));
        if !account.starts_with("opensandbox") || object.resource == "leases" {
            continue;
        }
        let resource = match object.subresource {
            Some(subresource) => format!("{}/{subresource}", object.resource),
            None => object.resource,
        };
        *counts.entry(Write { account: account.to_owned(), verb: event.verb, resource }).or_default() += 1;
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(stage: &str, verb: &str, user: &str, at: &str) -> String {
        serde_json::json!({
            "stage": stage, "verb": verb, "user": {"username": user}, "requestReceivedTimestamp": at,
            "objectRef": {"resource": "pods", "subresource": "status"},
        })
        .to_string()
    }

    #[test]
    fn counts_our_finished_writes_in_the_window() {
        let us = "system:serviceaccount:opensandbox-system:opensandbox-controller";
        let log = [
            line("ResponseComplete", "patch", us, "2026-01-01T00:00:01.000000Z"),
            line("ResponseComplete", "patch", us, "2026-01-01T00:00:02.000000Z"),
            line("RequestReceived", "patch", us, "2026-01-01T00:00:02.000000Z"),
            line("ResponseComplete", "get", us, "2026-01-01T00:00:02.000000Z"),
            line("ResponseComplete", "patch", "kubernetes-admin", "2026-01-01T00:00:02.000000Z"),
            line("ResponseComplete", "patch", us, "2026-01-01T00:00:09.000000Z"),
            "{\"stage\":\"Resp".to_owned(),
        ]
        .join("\n");
        let counts =
            writes(log.as_bytes(), "2026-01-01T00:00:00Z".parse().unwrap(), "2026-01-01T00:00:05Z".parse().unwrap());
        let patch = Write {
            account: "opensandbox-controller".to_owned(),
            verb: "patch".to_owned(),
            resource: "pods/status".to_owned(),
        };
        assert_eq!(counts.unwrap(), BTreeMap::from([(patch, 2)]));
    }
}
