//! What a sandbox that is not ready waits for, and whether waiting can help: pure.

use api_types::ErrorCode;
use api_types::crd::{BatchSandbox, ConditionStatus, Pool};
use api_types::explain::Waiting;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod, PodCondition};

use super::facts::{self, Facts};
use super::state::{condition, status};
use crate::error::ApiError;

/// What is waited for; with an error where waiting can't help.
#[derive(Debug, Clone)]
pub struct Diagnosis {
    /// For people and programs.
    pub waiting: Waiting,
    /// What a create answers at once.
    pub hopeless: Option<ErrorCode>,
}

impl Diagnosis {
    fn new(what: &str, why: impl Into<String>, since: Option<Timestamp>) -> Self {
        let waiting = Waiting { what: what.to_owned(), why: why.into(), action: None, since };
        Self { waiting, hopeless: None }
    }

    fn action(mut self, action: impl Into<String>) -> Self {
        self.waiting.action = Some(action.into());
        self
    }

    fn hopeless(mut self, code: ErrorCode) -> Self {
        self.hopeless = Some(code);
        self
    }

    /// The error that ends a create which can't come about.
    pub fn error(&self) -> Option<ApiError> {
        self.hopeless.map(|code| ApiError::new(code, self.sentence()))
    }

    /// Why, and what to do.
    pub fn sentence(&self) -> String {
        match &self.waiting.action {
            Some(action) => format!("{}; {action}", self.waiting.why),
            None => self.waiting.why.clone(),
        }
    }
}

/// Judges; nothing when the sandbox waits for nothing.
pub fn diagnose(object: &BatchSandbox, facts: &Facts) -> Option<Diagnosis> {
    if object.metadata.deletion_timestamp.is_some() || status(object).state != "Pending" {
        return None;
    }
    let created = object.metadata.creation_timestamp.as_ref().map(|t| t.0);
    if let Some(refused) = refused_pod(&facts.events).filter(|_| facts.pod.is_none()) {
        return Some(refused);
    }
    if let Some(pod) = &facts.pod {
        return Some(of_pod(pod, &facts.events));
    }
    let granted = object.status.iter().flat_map(|s| &s.grants).find(|g| g.state.holds());
    if let Some(grant) = granted {
        return Some(unclaimed(&grant.pod, created));
    }
    if let Some(pending) = condition(object, "PoolAllocationPending") {
        let why = pending.message.clone().unwrap_or_else(|| "the pool has no free pod".to_owned());
        let since = pending.last_transition_time.as_ref().map(|t| t.0).or(created);
        return Some(of_pool(why, since, facts.pool.as_deref()));
    }
    Some(match (&object.status, object.spec.pool_ref.is_some()) {
        (None, _) => Diagnosis::new("Controller", "the controller has not looked at the sandbox", created)
            .action("check that opensandbox-controller-manager runs and watches this namespace"),
        (Some(_), true) => of_pool("no pod of the pool is granted yet".to_owned(), created, facts.pool.as_deref()),
        (Some(_), false) => Diagnosis::new("PodCreate", "the pod is not there yet", created),
    })
}

fn of_pool(why: String, since: Option<Timestamp>, pool: Option<&Pool>) -> Diagnosis {
    let Some(pool) = pool else {
        return Diagnosis::new("PoolPending", why, since);
    };
    let max = pool.spec.capacity_spec.pool_max;
    let Some(state) = &pool.status else {
        return Diagnosis::new("PoolPending", why, since).action("the pool has no status yet: check the controller");
    };
    let (idle, held) = (state.available, state.allocated);
    let figures = format!("{why} (idle {idle}, allocated {held}, total {}, poolMax {max})", state.total);
    let failing = state.conditions.iter().find(|c| c.kind == "PodsFailing" && c.status == ConditionStatus::True);
    if let Some(failing) = failing {
        let words = failing.message.as_deref().or(failing.reason.as_deref()).unwrap_or("its pods fail");
        return Diagnosis::new("PoolPending", format!("{figures}: {words}"), since)
            .action(advice(failing.reason.as_deref().unwrap_or_default(), words));
    }
    if idle == 0 && state.total >= max {
        return Diagnosis::new("PoolFull", figures, since)
            .action("raise poolMax, or end sandboxes that are not needed");
    }
    Diagnosis::new("PoolPending", figures, since).action("the pool is growing: wait, or raise bufferMin")
}

/// A pod that the API server did not take: the controller's event has its words.
fn refused_pod(events: &[Event]) -> Option<Diagnosis> {
    let event = events.iter().rev().find(|e| e.reason.as_deref() == Some("FailedCreate"))?;
    let words = event.message.clone().unwrap_or_default();
    let waits = Diagnosis::new("PodCreate", words.clone(), facts::time(event));
    Some(if words.contains("exceeded quota") {
        waits
            .action("free something in the namespace, or have its ResourceQuota raised")
            .hopeless(ErrorCode::QuotaExceeded)
    } else if words.contains("PodSecurity") || words.contains("violates") {
        waits
            .action("label the namespace pod-security.kubernetes.io/enforce=privileged (or baseline), or ask for less privilege")
            .hopeless(ErrorCode::PodForbidden)
    } else if words.contains("forbidden") || words.contains("denied") {
        waits
            .action("grant the controller the right to create pods here, or change the admission policy")
            .hopeless(ErrorCode::PodForbidden)
    } else if words.contains("invalid") || words.contains("Invalid") {
        waits.action("correct the member that the message names").hopeless(ErrorCode::InvalidRequest)
    } else {
        waits
    })
}

fn of_pod(pod: &Pod, events: &[Event]) -> Diagnosis {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let state = pod.status.as_ref();
    let created = pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let conditions = || state.into_iter().filter_map(|s| s.conditions.as_ref()).flatten();
    let of_kind = |kind: &str| conditions().find(|c| c.type_ == kind);
    if let Some(unplaced) = of_kind("PodScheduled").filter(|c| c.status != "True") {
        return unscheduled(name, unplaced, events, created);
    }
    let all =
        [state.and_then(|s| s.init_container_statuses.as_ref()), state.and_then(|s| s.container_statuses.as_ref())];
    let all = all.into_iter().flatten().flatten();
    for container in all {
        if let Some(stuck) = stuck(name, container) {
            return stuck;
        }
    }
    let trouble = events.iter().rev().find(|e| {
        e.type_.as_deref() == Some("Warning")
            && e.involved_object.kind.as_deref() == Some("Pod")
            && matches!(e.reason.as_deref(), Some("FailedMount" | "FailedAttachVolume" | "FailedCreatePodSandBox"))
    });
    if let Some(event) = trouble.filter(|_| of_kind("Ready").is_none_or(|c| c.status != "True")) {
        let words = event.message.as_deref().unwrap_or_default();
        let why = format!("pod {name}: {}: {words}", event.reason.as_deref().unwrap_or_default());
        return Diagnosis::new("Starting", why, facts::time(event)).action("look at the node and its volumes");
    }
    if of_kind("Ready").is_some_and(|c| c.status == "True") {
        return unclaimed(name, created);
    }
    Diagnosis::new(
        "Starting",
        format!("pod {name} is starting: its image is being pulled or its containers come up"),
        created,
    )
}

/// A pod that is there and has not taken its owner.
fn unclaimed(pod: &str, since: Option<Timestamp>) -> Diagnosis {
    Diagnosis::new("Claim", format!("pod {pod} was granted and has not answered the claim"), since)
        .action("check that execd is in the pod and that the controller reaches its port 44772")
}

/// A pod without a node, in the scheduler's words.
fn unscheduled(name: &str, unplaced: &PodCondition, events: &[Event], created: Option<Timestamp>) -> Diagnosis {
    if let Some(unbound) = unbound_claim(name, events) {
        return unbound;
    }
    let words = unplaced.message.as_deref().unwrap_or("the scheduler has not looked at it");
    Diagnosis::new("Scheduling", format!("pod {name} has no node: {words}"), created).action(placement(words))
}

/// What to do about a pod that no node takes.
fn placement(words: &str) -> &'static str {
    if words.contains("storageclass") || words.contains("StorageClass") {
        "the cluster has no default StorageClass: name one in the volume, or have one made the default"
    } else if words.contains("PersistentVolumeClaim") {
        "the claim has no volume: the cluster may have no default StorageClass; name one, or make the volume"
    } else if words.contains("Insufficient") {
        "no node has that much left: ask for less, or add nodes"
    } else {
        "the scheduler waits for a node that fits"
    }
}

/// A claim that nothing in the cluster will ever bind.
fn unbound_claim(pod: &str, events: &[Event]) -> Option<Diagnosis> {
    let event = events.iter().rev().find(|e| {
        let words = e.message.as_deref().unwrap_or_default();
        e.involved_object.kind.as_deref() == Some("PersistentVolumeClaim")
            && matches!(e.reason.as_deref(), Some("FailedBinding" | "ProvisioningFailed"))
            && (words.contains("no storage class is set") || words.contains("storageclass.storage.k8s.io"))
    })?;
    let claim = event.involved_object.name.as_deref().unwrap_or_default();
    let words = event.message.as_deref().unwrap_or_default();
    let why = format!("pod {pod} has no node: claim {claim}: {words}");
    let action = "name a StorageClass that exists in the volume, or have one made the cluster's default";
    Some(Diagnosis::new("Scheduling", why, facts::time(event)).action(action).hopeless(ErrorCode::PodFailed))
}

/// A container that can't start, and whether that may change by itself.
fn stuck(pod: &str, container: &ContainerStatus) -> Option<Diagnosis> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    if matches!(reason, "PodInitializing" | "ContainerCreating") {
        return None;
    }
    let words = waiting.message.as_deref().unwrap_or(reason);
    let why = format!("pod {pod}: {reason}: {words}");
    let pull = reason.contains("Image");
    let diagnosis =
        Diagnosis::new(if pull { "ImagePull" } else { "Starting" }, why, None).action(advice(reason, words));
    Some(match reason {
        // kubelet has tried at least twice, or says that it need not try.
        "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" | "CreateContainerConfigError" => {
            diagnosis.hopeless(ErrorCode::PodFailed)
        }
        _ => diagnosis,
    })
}

/// What to do about a pod that does not start.
pub fn advice(reason: &str, words: &str) -> &'static str {
    let lower = words.to_ascii_lowercase();
    match reason {
        "Unschedulable" => placement(words),
        _ if lower.contains("unauthorized") || lower.contains("denied") || lower.contains("authentication") => {
            "the registry wants an account: give image.auth, or a pull secret to the nodes or the pool's template"
        }
        "InvalidImageName" => "correct the image reference",
        "ErrImageNeverPull" => "load the image onto the nodes, or let them pull",
        _ if lower.contains("not found") || lower.contains("manifest unknown") => {
            "no such image: correct its name and tag, or push it"
        }
        _ if reason.contains("Image") => "check the image's name, and that the nodes reach its registry",
        "CreateContainerConfigError" => "a Secret or ConfigMap that the pod names is missing",
        _ => "look at the pod's events and logs",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::sandboxes::state::tests::object;

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p-1"}, "status": status})).unwrap()
    }

    fn event(reason: &str, message: &str) -> Event {
        serde_json::from_value(json!({
            "metadata": {}, "type": "Warning", "reason": reason, "message": message,
            "involvedObject": {"kind": "BatchSandbox", "name": "s"}, "lastTimestamp": "2026-11-23T10:00:05Z"
        }))
        .unwrap()
    }

    fn of(status: Value, facts: Facts) -> (String, Option<ErrorCode>, String) {
        let found = diagnose(&object(status), &facts).unwrap();
        (found.waiting.what.clone(), found.hopeless, found.sentence())
    }

    #[test]
    fn a_refused_pod_is_told_at_once_with_what_to_do() {
        let table = [
            (
                r#"pods "s-0" is forbidden: violates PodSecurity "restricted:latest""#,
                ErrorCode::PodForbidden,
                "pod-security",
            ),
            (r#"pods "s-0" is forbidden: exceeded quota: q"#, ErrorCode::QuotaExceeded, "ResourceQuota"),
            (r#"admission webhook "x" denied the request"#, ErrorCode::PodForbidden, "admission policy"),
        ];
        for (message, code, advice) in table {
            let facts = Facts { events: vec![event("FailedCreate", message)], ..Facts::default() };
            let (what, hopeless, sentence) = of(json!({"replicas": 0}), facts);
            assert_eq!((what.as_str(), hopeless), ("PodCreate", Some(code)));
            assert!(sentence.contains(message) && sentence.contains(advice), "{sentence}");
        }
    }

    #[test]
    fn a_pod_says_what_it_waits_for() {
        let waiting = |reason: &str, message: &str| {
            let container = json!({"name": "sandbox", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": reason, "message": message}}});
            Facts { pod: Some(pod(json!({"containerStatuses": [container]}))), ..Facts::default() }
        };
        let (what, hopeless, sentence) = of(json!({"replicas": 1}), waiting("ImagePullBackOff", "x: not found"));
        assert_eq!((what.as_str(), hopeless), ("ImagePull", Some(ErrorCode::PodFailed)));
        assert!(sentence.contains("correct its name"), "{sentence}");
        assert_eq!(of(json!({"replicas": 1}), waiting("ErrImagePull", "401 Unauthorized")).1, None);
        assert_eq!(of(json!({"replicas": 1}), waiting("PodInitializing", "")).0, "Starting");
        let unplaced =
            pod(json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "pod has unbound immediate PersistentVolumeClaims"}]}));
        let (what, hopeless, sentence) = of(json!({"replicas": 1}), Facts { pod: Some(unplaced), ..Facts::default() });
        assert_eq!((what.as_str(), hopeless), ("Scheduling", None));
        assert!(sentence.contains("StorageClass"), "{sentence}");
        let unplaced =
            pod(json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]}));
        let mut unbound =
            event("FailedBinding", "no persistent volumes available for this claim and no storage class is set");
        unbound.involved_object.kind = Some("PersistentVolumeClaim".to_owned());
        let facts = Facts { pod: Some(unplaced), events: vec![unbound], ..Facts::default() };
        let (_, hopeless, sentence) = of(json!({"replicas": 1}), facts);
        assert_eq!(hopeless, Some(ErrorCode::PodFailed));
        assert!(sentence.contains("no storage class is set; name a StorageClass"), "{sentence}");
    }

    #[test]
    fn a_full_pool_shows_its_figures() {
        let pool: Pool = serde_json::from_value(json!({
            "apiVersion": "sandbox.opensandbox.io/v1alpha1", "kind": "Pool", "metadata": {"name": "p"},
            "spec": {"capacitySpec": {"bufferMax": 1, "bufferMin": 1, "poolMax": 2, "poolMin": 1}},
            "status": {"revision": "", "total": 2, "allocated": 2, "available": 0}
        }))
        .unwrap();
        let facts = Facts { pool: Some(std::sync::Arc::new(pool)), ..Facts::default() };
        let status = json!({"replicas": 0, "conditions": [
            {"type": "PoolAllocationPending", "status": "True", "message": "no pod is free"}]});
        let (what, _, sentence) = of(status, facts);
        assert_eq!(what, "PoolFull");
        assert!(sentence.contains("idle 0, allocated 2, total 2, poolMax 2"), "{sentence}");
        let waits = diagnose(&object(json!({"replicas": 1, "phase": "Succeed"})), &Facts::default());
        assert!(waits.is_none());
    }
}
