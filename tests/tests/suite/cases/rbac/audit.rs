//! The API server's audit log, read for what each of our accounts asked.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::Right;

/// What was asked.
#[derive(Debug, Default)]
pub struct Used {
    /// What was allowed.
    pub rights: BTreeSet<Right>,
    /// What was not.
    pub refused: BTreeSet<Right>,
}

/// Reads what the accounts of a namespace asked since a moment.
pub fn read(log: &str, namespace: &str, since: Timestamp) -> Used {
    let mut used = Used::default();
    for asked in e2e::audit::read(log) {
        // Reviews of the own rights are allowed to everybody, too.
        if asked.namespace != namespace || asked.at < since || asked.group == "authorization.k8s.io" {
            continue;
        }
        let right = Right { account: asked.account, group: asked.group, resource: asked.resource, verb: asked.verb };
        if asked.forbidden {
            used.refused.insert(right)
        } else {
            used.rights.insert(right)
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
