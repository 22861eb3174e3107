//! The API server's audit log, read for who wrote what.

use std::collections::BTreeMap;

use e2e::audit;
use jiff::Timestamp;

/// One kind of write.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Write {
    /// The service account.
    pub account: String,
    /// Kubernetes' verb.
    pub verb: String,
    /// `resource`, or `resource/subresource`.
    pub resource: String,
}

/// Counts the writes of the platform's accounts between two moments.
///
/// Leases are left out: they are renewed by time, not by sandboxes.
pub fn writes(log: &str, from: Timestamp, to: Timestamp) -> BTreeMap<Write, usize> {
    let writes = |verb: &str| ["create", "update", "patch", "delete", "deletecollection"].contains(&verb);
    let mut counts = BTreeMap::new();
    for asked in audit::read(log) {
        if asked.stage == "ResponseComplete"
            && (from..=to).contains(&asked.at)
            && writes(&asked.verb)
            && asked.account.starts_with("opensandbox")
            && asked.resource != "leases"
        {
            let write = Write { account: asked.account, verb: asked.verb, resource: asked.resource };
            *counts.entry(write).or_default() += 1;
        }
    }
    counts
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
        let counts = writes(&log, "2026-01-01T00:00:00Z".parse().unwrap(), "2026-01-01T00:00:05Z".parse().unwrap());
        let patch = Write {
            account: "opensandbox-controller".to_owned(),
            verb: "patch".to_owned(),
            resource: "pods/status".to_owned(),
        };
        assert_eq!(counts, BTreeMap::from([(patch, 2)]));
    }
}
