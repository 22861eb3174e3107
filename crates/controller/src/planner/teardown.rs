//! What is left to do for a BatchSandbox that is being deleted.
//!
//! Tasks are stopped first. Then the pods go; the finalizer of the allocation is removed once each
//! is gone from the API or its deletion was accepted: from then on the pod cannot be granted, its
//! daemons die with it, and the old owner's token opens nothing.

use api_types::crd::GrantState;
use api_types::names::finalizers;
use jiff::{SignedDuration, Timestamp};

use super::batch::{Action, BatchPlan, TaskWatch, pool_of};
use super::obituary;
use crate::guard::{Guard, stands};
use crate::world::{BatchSnapshot, TasksSeen};

/// How long tasks are given to stop: a little above the 10 s after which executors kill.
const STOP_DEADLINE: SignedDuration = SignedDuration::from_secs(15);

/// Plans the teardown.
pub fn plan(s: &BatchSnapshot) -> BatchPlan {
    let mut plan = BatchPlan::default();
    let meta = &s.batch.metadata;
    let finalizers = meta.finalizers.clone().unwrap_or_default();
    if finalizers.is_empty() {
        return plan;
    }
    let has = |f: &str| finalizers.iter().any(|x| x == f);
    let since = meta.deletion_timestamp.as_ref().map_or(s.now, |t| t.0);
    if has(finalizers::TASK_CLEANUP) && stopping(s, since, &mut plan) {
        return plan;
    }
    let grants = s.batch.status.iter().flat_map(|st| &st.grants).filter(|g| g.state != GrantState::Released);
    let granted = grants.filter_map(|g| s.pods.get(g.pod_uid.as_str()));
    // What an older controller gave back was used all the same, and nobody else has it.
    let inherited = s.inherited.iter().flatten().flatten().filter_map(|i| i.pod.as_ref());
    let alive: Vec<_> = granted.chain(inherited).filter(|p| !p.deleting).collect();
    if has(finalizers::POOL_ALLOCATION)
        && pool_of(&s.batch).is_some()
        && !alive.is_empty()
        && stands(Guard::FinalizerLast)
    {
        for pod in alive {
            plan.actions.push(Action::DeletePod { pod: pod.clone(), why: "its sandbox was deleted" });
        }
        return plan;
    }
    if !s.reserved.is_empty() {
        plan.actions.push(Action::ReturnReserved(s.reserved.clone()));
    }
    let left: Vec<String> =
        finalizers.into_iter().filter(|f| f != finalizers::TASK_CLEANUP && f != finalizers::POOL_ALLOCATION).collect();
    if left.len() != meta.finalizers.as_ref().map_or(0, Vec::len) {
        // Before the object can go: afterwards nobody would know.
        plan.actions.push(Action::Note(obituary::last_word(&s.batch, s.now)));
        plan.actions.push(Action::Finalizers(left));
    }
    plan
}

/// Whether tasks are still being stopped.
fn stopping(s: &BatchSnapshot, since: Timestamp, plan: &mut BatchPlan) -> bool {
    let deadline = since.saturating_add(STOP_DEADLINE).unwrap_or(Timestamp::MAX);
    if s.now >= deadline {
        return false;
    }
    let held = s.batch.status.iter().flat_map(|st| &st.grants).filter(|g| g.state.holds());
    for pod in held.filter_map(|g| s.pods.get(g.pod_uid.as_str())) {
        let stopped = match s.tasks.get(&pod.uid) {
            Some(TasksSeen::Listed(tasks)) => {
                tasks.iter().all(|t| t.process_status.as_ref().is_some_and(|p| p.terminated.is_some()))
            }
            Some(TasksSeen::Silent(_)) => true,
            None => false,
        };
        if pod.task_executor && pod.is_ready() && !stopped {
            plan.task_watches.push(TaskWatch { pod: pod.clone(), tasks: Vec::new() });
        }
    }
    plan.wake_at = Some(deadline);
    !plan.task_watches.is_empty()
}
