//! Why a sandbox ended: in its status while it is there, and in one last Event when it goes.
//!
//! Kubernetes: the API server keeps Events for a set time, an hour unless it is told otherwise, so the record is bounded.

use api_types::crd::{BatchSandbox, Termination};
use jiff::{SignedDuration, Timestamp};

use super::batch::pool_of;
use super::{Note, conditions};
use crate::world::Trouble;

/// How a sandbox that failed ended. What was known before and is not seen any more is kept.
pub(super) fn of_failure(trouble: &Trouble, old: Option<&Termination>, now: Timestamp) -> Termination {
    let old = old.filter(|old| old.reason == trouble.reason);
    let exit = trouble.exit.as_ref();
    let seen = exit.and_then(|e| e.at).map_or_else(|| conditions::seconds(now), conditions::seconds);
    Termination {
        reason: trouble.reason.clone(),
        message: trouble.message.clone(),
        container: exit.and_then(|e| e.container.clone()).or_else(|| old?.container.clone()),
        exit_code: exit.map(|e| e.code).or_else(|| old?.exit_code),
        signal: exit.and_then(|e| e.signal).or_else(|| old?.signal),
        at: old.and_then(|old| old.at.clone()).or(Some(seen)),
    }
}

/// Whether the last word is said while the sandbox is torn down. The others are gone before anybody could act.
pub fn is_told_in_teardown(batch: &BatchSandbox) -> bool {
    pool_of(batch).is_some() || batch.spec.task_template.is_some()
}

/// The last word about a sandbox that goes.
pub fn last_word(batch: &BatchSandbox, now: Timestamp) -> Note {
    let failed = batch.status.as_ref().and_then(|s| s.termination.clone());
    let warning = failed.is_some();
    let end = failed.unwrap_or_else(|| of_deletion(batch, now));
    let reason = end.reason.clone();
    let message = format!("{}{}", end.message, life(batch, now));
    Note { warning, reason, message, last: Some(Box::new(end)) }
}

fn of_deletion(batch: &BatchSandbox, now: Timestamp) -> Termination {
    let deleted = batch.metadata.deletion_timestamp.as_ref().map_or(now, |t| t.0);
    let expired = batch.spec.expire_time.as_ref().is_some_and(|end| end.0 <= deleted);
    let (reason, message) = if expired {
        ("Expired", "its time was over: spec.expireTime had passed")
    } else {
        ("Deleted", "somebody asked for its deletion")
    };
    Termination {
        reason: reason.to_owned(),
        message: message.to_owned(),
        at: Some(conditions::seconds(deleted)),
        ..Termination::default()
    }
}

/// What it had, and for how long.
fn life(batch: &BatchSandbox, now: Timestamp) -> String {
    let lived = batch.metadata.creation_timestamp.as_ref().map_or(SignedDuration::ZERO, |t| now.duration_since(t.0));
    let grants = batch.status.as_ref().map_or(&[][..], |s| &s.grants);
    let pods = match grants {
        [] => "no pod".to_owned(),
        [one] => format!("pod {}", one.pod),
        [.., last] => format!("{} pods, the last one {}", grants.len(), last.pod),
    };
    format!("; it existed for {} s and had {pods}", lived.as_secs().max(0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::world::Exit;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn batch(spec: serde_json::Value, status: serde_json::Value) -> BatchSandbox {
        serde_json::from_value(json!({
            "apiVersion": "sandbox.opensandbox.io/v1alpha1", "kind": "BatchSandbox", "spec": spec, "status": status,
            "metadata": {"name": "s", "creationTimestamp": at(100).to_string(), "deletionTimestamp": at(160).to_string()}}))
        .unwrap()
    }

    #[test]
    fn who_was_deleted_is_told_from_who_expired() {
        let grants = json!({"replicas": 1, "grants": [{"index": 0, "pod": "p-1", "podUID": "u", "epoch": 1, "state": "Claimed"}]});
        let note = last_word(&batch(json!({"poolRef": "p"}), grants), at(161));
        assert_eq!((note.warning, note.reason.as_str()), (false, "Deleted"));
        assert!(note.message.ends_with("it existed for 61 s and had pod p-1"), "{}", note.message);
        let expired = batch(json!({"poolRef": "p", "expireTime": at(160).to_string()}), json!({"replicas": 0}));
        assert_eq!(last_word(&expired, at(161)).reason, "Expired");
    }

    #[test]
    fn a_failure_keeps_its_exit_after_its_pod_has_gone() {
        let exit = Exit { container: Some("sandbox".into()), code: 137, signal: Some(9), at: Some(at(90)) };
        let first = of_failure(&Trouble::new("OOMKilled", "m").with_exit(Some(exit)), None, at(100));
        assert_eq!((first.exit_code, first.signal, first.at.clone().unwrap().0), (Some(137), Some(9), at(90)));
        let later = of_failure(&Trouble::new("OOMKilled", "m"), Some(&first), at(200));
        assert_eq!(later, first);
        let other = of_failure(&Trouble::new("PodDeleted", "m"), Some(&first), at(200));
        assert_eq!((other.exit_code, other.at.unwrap().0), (None, at(200)));
    }
}
