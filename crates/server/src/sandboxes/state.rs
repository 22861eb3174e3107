//! What a BatchSandbox's status means to the lifecycle API: pure.

use api_types::crd::{BatchPhase, BatchSandbox, Condition, ConditionStatus, Grant, GrantState};
use api_types::lifecycle::SandboxStatus;
use api_types::names::annotations;
use jiff::Timestamp;

/// State, reason, message and since when.
pub fn status(object: &BatchSandbox) -> SandboxStatus {
    let created = object.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let told = |state: &str, reason: &str, message: &str, since: Option<Timestamp>| SandboxStatus {
        state: state.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_at: since.or(created),
    };
    if let Some(deleted) = &object.metadata.deletion_timestamp {
        return told("Stopping", "DELETING", "Sandbox is being deleted", Some(deleted.0));
    }
    let phase = object.status.as_ref().and_then(|s| s.phase);
    let ready_since = condition(object, "Ready").and_then(|c| c.last_transition_time.as_ref()).map(|t| t.0);
    match phase {
        Some(BatchPhase::Failed) => failed(object, "FAILED", created),
        Some(BatchPhase::Pausing) => told("Pausing", "PAUSING", "Pausing sandbox", None),
        Some(BatchPhase::Paused) => told("Paused", "PAUSED", "Sandbox is paused", None),
        Some(BatchPhase::Resuming) => told("Resuming", "RESUMING", "Resuming sandbox", None),
        _ if object.status.as_ref().is_some_and(|s| s.task_failed > 0) => failed(object, "TASK_FAILED", created),
        Some(BatchPhase::Succeed) => told("Running", "RUNNING", "Sandbox is running", ready_since),
        Some(BatchPhase::Pending) | None => match condition(object, "PoolAllocationPending") {
            Some(pending) => {
                let message = pending.message.as_deref().unwrap_or("The pool has no free pod");
                told("Pending", "POOL_CAPACITY_EXHAUSTED", message, None)
            }
            None => told("Pending", "CREATING", "Sandbox is being created", None),
        },
    }
}

/// The failure in the controller's words.
fn failed(object: &BatchSandbox, fallback: &str, created: Option<Timestamp>) -> SandboxStatus {
    let why = ["PodFailed", "TaskFailed", "ResumeFailed", "PauseFailed", "InvalidSpec"]
        .into_iter()
        .find_map(|kind| condition(object, kind));
    let lost = object.status.iter().flat_map(|s| &s.grants).find_map(|g| g.reason.clone());
    SandboxStatus {
        state: "Failed".to_owned(),
        reason: why.and_then(|c| c.reason.clone()).or_else(|| Some(fallback.to_owned())),
        message: why.and_then(|c| c.message.clone()).or(lost).or_else(|| Some("The sandbox failed".to_owned())),
        last_transition_at: why.and_then(|c| c.last_transition_time.as_ref()).map(|t| t.0).or(created),
    }
}

/// A condition that holds.
pub fn condition<'a>(object: &'a BatchSandbox, kind: &str) -> Option<&'a Condition> {
    let conditions = &object.status.as_ref()?.conditions;
    conditions.iter().find(|c| c.kind == kind && c.status == ConditionStatus::True)
}

/// The pod that is the sandbox: the claimed grant of the lowest index, and of those the latest.
pub fn claimed(object: &BatchSandbox) -> Option<&Grant> {
    let grants = &object.status.as_ref()?.grants;
    grants.iter().filter(|g| g.state == GrantState::Claimed).min_by_key(|g| (g.index, std::cmp::Reverse(g.epoch)))
}

/// Where the sandbox is reached now. Never remembered: pod addresses are given to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// IP of the pod.
    pub ip: String,
    /// UID of the pod; absent for objects that older controllers left behind.
    pub pod_uid: Option<String>,
}

/// The sandbox's address, if it has one.
pub fn address(object: &BatchSandbox) -> Option<Address> {
    if object.metadata.deletion_timestamp.is_some() {
        return None;
    }
    if let Some(grant) = claimed(object) {
        let ip = grant.pod_ip.clone().filter(|ip| !ip.is_empty()).or_else(|| annotated_ip(object, grant.index))?;
        return Some(Address { ip, pod_uid: Some(grant.pod_uid.clone()) });
    }
    // Only an object without any grant can be an older controller's.
    let status = object.status.as_ref()?;
    if status.grants.is_empty() && status.phase == Some(BatchPhase::Succeed) {
        return annotated_ip(object, 0).map(|ip| Address { ip, pod_uid: None });
    }
    None
}

fn annotated_ip(object: &BatchSandbox, index: i32) -> Option<String> {
    let text = object.metadata.annotations.as_ref()?.get(annotations::ENDPOINTS)?;
    let addresses: Vec<String> = serde_json::from_str(text).ok()?;
    let ip = addresses.get(usize::try_from(index).ok()?)?;
    (!ip.is_empty()).then(|| ip.clone())
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A BatchSandbox as the API server gives it.
    pub(crate) fn object(status: Value) -> BatchSandbox {
        serde_json::from_value(json!({
            "apiVersion": "sandbox.opensandbox.io/v1alpha1", "kind": "BatchSandbox",
            "metadata": {"name": "s", "uid": "u", "creationTimestamp": "2026-11-23T10:00:00Z"},
            "spec": {"replicas": 1, "poolRef": "p"}, "status": status
        }))
        .unwrap()
    }

    fn grant(index: i32, epoch: i64, state: &str, ip: &str) -> Value {
        json!({"index": index, "pod": "p", "podUID": format!("uid-{epoch}"), "podIP": ip, "epoch": epoch, "state": state})
    }

    #[test]
    fn states() {
        let holds =
            |kind: &str| json!([{"type": kind, "status": "True", "reason": "OOMKilled", "message": "ate its memory"}]);
        let table = [
            (Value::Null, "Pending", "CREATING"),
            (json!({"replicas": 1, "phase": "Pending"}), "Pending", "CREATING"),
            (
                json!({"replicas": 1, "conditions": holds("PoolAllocationPending")}),
                "Pending",
                "POOL_CAPACITY_EXHAUSTED",
            ),
            (json!({"replicas": 1, "phase": "Succeed"}), "Running", "RUNNING"),
            (json!({"replicas": 1, "phase": "Succeed", "taskFailed": 1}), "Failed", "TASK_FAILED"),
            (json!({"replicas": 1, "phase": "Paused", "taskFailed": 1}), "Paused", "PAUSED"),
            (json!({"replicas": 1, "phase": "Failed"}), "Failed", "FAILED"),
            (json!({"replicas": 1, "phase": "Failed", "conditions": holds("PodFailed")}), "Failed", "OOMKilled"),
        ];
        for (given, state, reason) in table {
            let told = status(&object(given.clone()));
            assert_eq!((told.state.as_str(), told.reason.as_deref()), (state, Some(reason)), "{given}");
        }
        let mut deleted = object(json!({"replicas": 1, "phase": "Succeed"}));
        deleted.metadata.deletion_timestamp = deleted.metadata.creation_timestamp.clone();
        assert_eq!(status(&deleted).state, "Stopping");
        assert_eq!(address(&deleted), None);
    }

    #[test]
    fn only_the_current_claim_is_an_address() {
        let of = |grants: Value| address(&object(json!({"replicas": 1, "phase": "Succeed", "grants": grants})));
        assert_eq!(of(json!([grant(0, 1, "Granted", "10.0.0.1")])), None);
        assert_eq!(of(json!([grant(0, 1, "Lost", "10.0.0.1")])), None);
        let now = of(json!([grant(0, 1, "Lost", "10.0.0.1"), grant(0, 2, "Claimed", "10.0.0.2")])).unwrap();
        assert_eq!(now, Address { ip: "10.0.0.2".to_owned(), pod_uid: Some("uid-2".to_owned()) });
    }

    #[test]
    fn an_older_controllers_annotation_counts_only_without_grants() {
        let mut old = object(json!({"replicas": 1, "phase": "Succeed"}));
        old.metadata.annotations = Some([(annotations::ENDPOINTS.to_owned(), "[\"10.0.0.9\"]".to_owned())].into());
        assert_eq!(address(&old), Some(Address { ip: "10.0.0.9".to_owned(), pod_uid: None }));
        old.status.as_mut().unwrap().grants = vec![serde_json::from_value(grant(0, 1, "Lost", "10.0.0.1")).unwrap()];
        assert_eq!(address(&old), None);
    }
}
