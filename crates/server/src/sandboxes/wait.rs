//! From a BatchSandbox to a verdict, and the wait that asks for it whenever the watch brings news.

use std::sync::Arc;
use std::time::Duration;

use api_types::ErrorCode;
use api_types::crd::{BatchPhase, BatchSandbox, Pool};
use tokio::time::Instant;

use super::diagnosis::{Diagnosis, advice};
use super::state::{address, condition, status};
use crate::error::ApiError;
use crate::store::{Seen, Waiter};

/// How far a create is.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// execd has answered under the claim's token.
    Ready,
    /// It will not become ready.
    Failed(ApiError),
    /// Not yet.
    Waiting {
        /// Whether a pod is held.
        granted: bool,
        /// What is waited for.
        why: String,
    },
}

/// Judges what is known of an object: pure.
pub fn judge(object: &BatchSandbox) -> Verdict {
    if object.metadata.deletion_timestamp.is_some() {
        return Verdict::Failed(ApiError::new(ErrorCode::SandboxGone, "the sandbox was deleted while it was made"));
    }
    if let Some(invalid) = condition(object, "InvalidSpec") {
        let message =
            invalid.message.clone().unwrap_or_else(|| "the controller can't use the sandbox's spec".to_owned());
        return Verdict::Failed(ApiError::new(ErrorCode::InvalidRequest, message));
    }
    let told = status(object);
    if told.state == "Failed" {
        let reason = told.reason.unwrap_or_default();
        let code = match reason.as_str() {
            "PodSecurity" | "MissingPermission" => ErrorCode::PodForbidden,
            "InvalidTemplate" => ErrorCode::InvalidRequest,
            _ => ErrorCode::PodFailed,
        };
        let words = told.message.unwrap_or_default();
        let mut message = format!("{reason}: {words}");
        if reason.contains("Image") || reason == "CreateContainerConfigError" {
            message = format!("{message}; {}", advice(&reason, &words));
        }
        return Verdict::Failed(ApiError::new(code, message));
    }
    let state = object.status.as_ref();
    if let Some(quota) = condition(object, "Progressing").filter(|c| c.reason.as_deref() == Some("QuotaExceeded")) {
        // Others may leave some day; a caller is better told now.
        let message = quota.message.clone().unwrap_or_else(|| "a quota of the namespace is used up".to_owned());
        return Verdict::Failed(ApiError::new(ErrorCode::QuotaExceeded, message));
    }
    if state.and_then(|s| s.phase) == Some(BatchPhase::Succeed) && address(object).is_some() {
        return Verdict::Ready;
    }
    let held = state.into_iter().flat_map(|s| &s.grants).find(|g| g.state.holds());
    let why = match (held, condition(object, "PoolAllocationPending")) {
        (Some(grant), _) => format!("pod {} was granted and has not answered the claim", grant.pod),
        (None, Some(pending)) => pending.message.clone().unwrap_or_else(|| "the pool has no free pod".to_owned()),
        (None, None) if state.is_none() => "the controller has not looked at the sandbox; does it run?".to_owned(),
        (None, None) => match condition(object, "Progressing").and_then(|c| c.message.clone()) {
            Some(message) => message,
            None => "no pod is ready".to_owned(),
        },
    };
    Verdict::Waiting { granted: held.is_some(), why }
}

/// How long things may take, from the start of the request.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// When the request came.
    pub start: Instant,
    /// Bound of the whole.
    pub create: Duration,
    /// Bound of getting a pod from the pool; absent without a pool.
    pub acquisition: Option<Duration>,
}

/// When the milestones were seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Milestones {
    /// The object is written.
    pub accepted: Duration,
    /// A pod is held.
    pub granted: Option<Duration>,
    /// The pod knows its owner.
    pub claimed: Option<Duration>,
    /// execd has answered, and the sandbox can be used.
    pub execd: Option<Duration>,
}

/// Who tells more than the object does: the pool, and, for a create that takes long, what Kubernetes says of the pod.
pub trait Witness {
    /// The pool of the sandbox.
    fn pool(&self) -> Option<Arc<Pool>>;

    /// Why it takes so long; nothing when that can't be told.
    async fn diagnose(&self, object: &BatchSandbox) -> Option<Diagnosis>;
}

/// A create that is not ready after this is looked into, and again after each such time: something may hold it up that
/// no waiting mends, and the caller shall hear of it before the deadline.
const LOOK_INTO: Duration = Duration::from_secs(3);

/// Waits until the object is ready, or can't be, or a deadline passes.
pub async fn until_ready(
    waiter: &mut Waiter<BatchSandbox>,
    deadlines: Deadlines,
    witness: &impl Witness,
    milestones: &mut Milestones,
) -> Result<Arc<BatchSandbox>, ApiError> {
    let mut look = deadlines.start + LOOK_INTO;
    let mut why = "the watch to bring the sandbox back".to_owned();
    loop {
        let mut held = false;
        let mut known = None;
        match waiter.current() {
            Seen::Never => {}
            Seen::Gone => {
                return Err(ApiError::new(ErrorCode::SandboxGone, "the sandbox was deleted while it was made"));
            }
            Seen::Present(object) => match judge(&object) {
                Verdict::Ready => {
                    let now = deadlines.start.elapsed();
                    milestones.granted.get_or_insert(now);
                    milestones.claimed.get_or_insert(now);
                    milestones.execd = Some(now);
                    return Ok(object);
                }
                Verdict::Failed(error) => return Err(error),
                Verdict::Waiting { granted, why: now } => {
                    held = granted;
                    why = now;
                    known = Some(object.clone());
                }
            },
        }
        if held {
            milestones.granted.get_or_insert(deadlines.start.elapsed());
        }
        let acquisition = deadlines.acquisition.filter(|_| !held).map(|within| deadlines.start + within);
        let create = deadlines.start + deadlines.create;
        let next = acquisition.map_or(create, |a| a.min(create));
        if tokio::time::timeout_at(next.min(look), waiter.changed()).await.is_ok() {
            continue;
        }
        let late = Instant::now() >= next;
        look = Instant::now() + LOOK_INTO;
        if let Some(object) = &known
            && let Some(found) = witness.diagnose(object).await
        {
            if let Some(error) = found.error() {
                return Err(error);
            }
            why = found.sentence();
        }
        if late {
            let acquiring = acquisition.is_some_and(|a| a <= create);
            return Err(too_late(waiter, &deadlines, acquiring, &why, witness.pool().as_deref()));
        }
    }
}

/// The answer when a deadline passed: whose fault it is, as far as is known.
fn too_late(
    waiter: &mut Waiter<BatchSandbox>,
    deadlines: &Deadlines,
    acquiring: bool,
    why: &str,
    pool: Option<&Pool>,
) -> ApiError {
    let pending = match waiter.current() {
        Seen::Present(object) => condition(&object, "PoolAllocationPending").is_some(),
        Seen::Never | Seen::Gone => false,
    };
    let within = if acquiring { deadlines.acquisition.unwrap_or(deadlines.create) } else { deadlines.create };
    if acquiring && (pending || pool.is_some_and(is_full)) {
        let message = format!("no pod became free within {} s: {why}", within.as_secs_f64());
        return ApiError::new(ErrorCode::PoolCapacityExhausted, message).retry_after(within);
    }
    ApiError::new(ErrorCode::PodReadyTimeout, format!("not ready within {} s; waited for: {why}", within.as_secs_f64()))
}

/// Whether a pool has nothing free and may not grow.
fn is_full(pool: &Pool) -> bool {
    pool.status.as_ref().is_some_and(|s| s.available == 0 && s.total >= pool.spec.capacity_spec.pool_max)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sandboxes::diagnosis::diagnose;
    use crate::sandboxes::facts::Facts;
    use crate::sandboxes::state::tests::object;
    use crate::store::Store;
    use kube::runtime::watcher::Event;

    fn granted(state: &str) -> serde_json::Value {
        json!([{"index": 0, "pod": "pod-1", "podUID": "u", "podIP": "10.0.0.1", "epoch": 1, "state": state}])
    }

    #[test]
    fn verdicts() {
        assert!(matches!(judge(&object(json!(null))), Verdict::Waiting { granted: false, .. }));
        let held = judge(&object(json!({"replicas": 1, "phase": "Pending", "grants": granted("Granted")})));
        assert!(matches!(held, Verdict::Waiting { granted: true, ref why } if why.contains("pod-1")), "{held:?}");
        // Ready is phase and claim together.
        let early = judge(&object(json!({"replicas": 1, "phase": "Pending", "grants": granted("Claimed")})));
        assert!(matches!(early, Verdict::Waiting { .. }));
        assert!(matches!(
            judge(&object(json!({"replicas": 1, "phase": "Succeed", "grants": granted("Claimed")}))),
            Verdict::Ready
        ));
        let failed = judge(&object(json!({"replicas": 1, "phase": "Failed", "conditions": [
            {"type": "PodFailed", "status": "True", "reason": "TASK_FAILED", "message": "exit 3"}]})));
        assert!(
            matches!(failed, Verdict::Failed(ref e) if e.code == ErrorCode::PodFailed && e.message == "TASK_FAILED: exit 3")
        );
        let refused = judge(&object(json!({"replicas": 1, "phase": "Failed", "conditions": [
            {"type": "PodFailed", "status": "True", "reason": "PodSecurity", "message": "violates it"}]})));
        assert!(matches!(refused, Verdict::Failed(ref e) if e.code == ErrorCode::PodForbidden));
        let quota = judge(&object(json!({"replicas": 0, "phase": "Pending", "conditions": [
            {"type": "Progressing", "status": "True", "reason": "QuotaExceeded", "message": "exceeded quota: q"}]})));
        assert!(matches!(quota, Verdict::Failed(ref e) if e.code == ErrorCode::QuotaExceeded));
        let invalid = judge(&object(json!({"replicas": 1, "conditions": [
            {"type": "InvalidSpec", "status": "True", "message": "spec.template: no"}]})));
        assert!(matches!(invalid, Verdict::Failed(ref e) if e.code == ErrorCode::InvalidRequest));
    }

    /// Knows a pool, and what holds a pod up.
    #[derive(Default)]
    struct Known(Option<Arc<Pool>>, Facts);

    impl Witness for Known {
        fn pool(&self) -> Option<Arc<Pool>> {
            self.0.clone()
        }

        async fn diagnose(&self, object: &BatchSandbox) -> Option<Diagnosis> {
            diagnose(object, &self.1)
        }
    }

    async fn wait(store: &Store<BatchSandbox>, pool: Option<Pool>) -> (Result<(), ErrorCode>, Milestones) {
        let (result, seen) = wait_with(store, &Known(pool.map(Arc::new), Facts::default())).await;
        (result.map_err(|e| e.code), seen)
    }

    async fn wait_with(store: &Store<BatchSandbox>, witness: &Known) -> (Result<(), ApiError>, Milestones) {
        let deadlines = Deadlines {
            start: Instant::now(),
            create: Duration::from_secs(60),
            acquisition: Some(Duration::from_secs(25)),
        };
        let mut seen = Milestones::default();
        let result = until_ready(&mut store.wait_for("s"), deadlines, witness, &mut seen).await;
        (result.map(|_| ()), seen)
    }

    #[tokio::test(start_paused = true)]
    async fn what_waiting_cannot_mend_is_told_long_before_the_deadline() {
        let store = Store::default();
        store.apply(Event::Apply(object(json!({"replicas": 0}))));
        let refused: k8s_openapi::api::core::v1::Event = serde_json::from_value(json!({
            "metadata": {}, "reason": "FailedCreate", "message": "pods \"s-0\" is forbidden: violates PodSecurity",
            "involvedObject": {"kind": "BatchSandbox", "name": "s"}
        }))
        .unwrap();
        let witness = Known(None, Facts { events: vec![refused], ..Facts::default() });
        let start = Instant::now();
        let error = wait_with(&store, &witness).await.0.unwrap_err();
        assert_eq!(error.code, ErrorCode::PodForbidden);
        assert_eq!(start.elapsed(), LOOK_INTO);
    }

    #[tokio::test(start_paused = true)]
    async fn deadlines_say_what_was_missing() {
        let store = Store::default();
        assert_eq!(wait(&store, None).await.0, Err(ErrorCode::PodReadyTimeout));
        store.apply(Event::Apply(object(json!({"replicas": 0, "conditions": [
            {"type": "PoolAllocationPending", "status": "True", "message": "full"}]}))));
        assert_eq!(wait(&store, None).await.0, Err(ErrorCode::PoolCapacityExhausted));
        store.apply(Event::Apply(object(json!({"replicas": 0}))));
        let full: Pool = serde_json::from_value(json!({
            "apiVersion": "sandbox.opensandbox.io/v1alpha1", "kind": "Pool", "metadata": {"name": "p"},
            "spec": {"capacitySpec": {"bufferMax": 1, "bufferMin": 1, "poolMax": 2, "poolMin": 1}},
            "status": {"revision": "", "total": 2, "allocated": 2, "available": 0}
        }))
        .unwrap();
        assert_eq!(wait(&store, Some(full)).await.0, Err(ErrorCode::PoolCapacityExhausted));
        // A pod that is held has the whole time, and is not the pool's fault.
        store.apply(Event::Apply(object(json!({"replicas": 1, "grants": granted("Granted")}))));
        let start = Instant::now();
        let (result, seen) = wait(&store, None).await;
        assert_eq!(result, Err(ErrorCode::PodReadyTimeout));
        assert_eq!(start.elapsed().as_secs(), 60);
        assert!(seen.granted.is_some() && seen.claimed.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn news_ends_the_wait() {
        let store = Store::default();
        let feeder = store.clone();
        let feed = async move {
            tokio::task::yield_now().await;
            feeder
                .apply(Event::Apply(object(json!({"replicas": 1, "phase": "Succeed", "grants": granted("Claimed")}))));
        };
        let ((result, seen), ()) = tokio::join!(wait(&store, None), feed);
        assert_eq!(result, Ok(()));
        assert!(seen.claimed.is_some());
        store.apply(Event::Delete(object(json!(null))));
        let mut waiter = store.wait_for("s");
        assert!(matches!(waiter.current(), Seen::Never));
    }
}
