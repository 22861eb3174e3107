//! From a BatchSandbox to a verdict, and the wait that asks for it whenever the watch brings news.

use std::time::Duration;

use api_types::ErrorCode;
use api_types::crd::{BatchPhase, BatchSandbox, Pool};
use tokio::time::Instant;

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
        let message = format!("{reason}: {}", told.message.unwrap_or_default());
        return Verdict::Failed(ApiError::new(ErrorCode::PodFailed, message));
    }
    let state = object.status.as_ref();
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
    /// The pod has answered.
    pub claimed: Option<Duration>,
}

/// Waits until the object is ready, or can't be, or a deadline passes.
pub async fn until_ready(
    waiter: &mut Waiter<BatchSandbox>,
    deadlines: Deadlines,
    pool: impl Fn() -> Option<std::sync::Arc<Pool>>,
    milestones: &mut Milestones,
) -> Result<std::sync::Arc<BatchSandbox>, ApiError> {
    let mut why = "the watch to bring the sandbox back".to_owned();
    loop {
        let mut held = false;
        match waiter.current() {
            Seen::Never => {}
            Seen::Gone => {
                return Err(ApiError::new(ErrorCode::SandboxGone, "the sandbox was deleted while it was made"));
            }
            Seen::Present(object) => match judge(&object) {
                Verdict::Ready => {
                    let now = deadlines.start.elapsed();
                    milestones.granted.get_or_insert(now);
                    milestones.claimed = Some(now);
                    return Ok(object);
                }
                Verdict::Failed(error) => return Err(error),
                Verdict::Waiting { granted, why: now } => {
                    held = granted;
                    why = now;
                }
            },
        }
        if held {
            milestones.granted.get_or_insert(deadlines.start.elapsed());
        }
        let acquisition = deadlines.acquisition.filter(|_| !held).map(|within| deadlines.start + within);
        let create = deadlines.start + deadlines.create;
        let next = acquisition.map_or(create, |a| a.min(create));
        if tokio::time::timeout_at(next, waiter.changed()).await.is_err() {
            return Err(too_late(
                waiter,
                &deadlines,
                acquisition.is_some_and(|a| a <= create),
                &why,
                pool().as_deref(),
            ));
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
        let invalid = judge(&object(json!({"replicas": 1, "conditions": [
            {"type": "InvalidSpec", "status": "True", "message": "spec.template: no"}]})));
        assert!(matches!(invalid, Verdict::Failed(ref e) if e.code == ErrorCode::InvalidRequest));
    }

    async fn wait(store: &Store<BatchSandbox>, pool: Option<Pool>) -> (Result<(), ErrorCode>, Milestones) {
        let pool = pool.map(std::sync::Arc::new);
        let deadlines = Deadlines {
            start: Instant::now(),
            create: Duration::from_secs(60),
            acquisition: Some(Duration::from_secs(25)),
        };
        let mut seen = Milestones::default();
        let result = until_ready(&mut store.wait_for("s"), deadlines, || pool.clone(), &mut seen).await;
        (result.map(|_| ()).map_err(|e| e.code), seen)
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
