//! What a Pool needs next: pods to create and to delete, and what its status says.

use std::time::Duration;

use api_types::crd::{Condition, PoolStatus, RecycleType};
use jiff::Timestamp;
use tokio::time::Instant;

use super::pool::{self, Capacity};
use super::{Note, conditions};
use crate::world::{PodView, PoolSnapshot, Template};

/// Condition types that are written here.
const OURS: [&str; 5] = ["Ready", "PodsFailing", "InvalidSpec", "AtCapacity", "RecycleUnsupported"];

/// Longest wait between two creations while pods end before they are ready: what kubelet takes for its own back-off, shortened.
const LONGEST_PAUSE: u64 = 60;

/// What to do for a Pool.
#[derive(Debug, Default)]
pub struct PoolPlan {
    /// Pods to create now.
    pub create: usize,
    /// Pods to delete now.
    pub delete: Vec<(PodView, &'static str)>,
    /// Status to write now.
    pub status: Option<Box<PoolStatus>>,
    /// When to look again if nothing happens.
    pub wake_at: Option<Instant>,
    /// Whether the buffer is being filled; to be remembered.
    pub filling: bool,
    /// Ended pods seen this time that never were ready; to be remembered.
    pub false_starts: u32,
    /// When the next creation may be; to be remembered.
    pub create_after: Option<Instant>,
    /// Tell people.
    pub notes: Vec<Note>,
}

/// Plans what to do. Status is written at most once in `status_interval`.
///
/// `now` is the time of day, for conditions; pauses are reckoned by `steady`, which nobody sets.
pub fn plan(s: &PoolSnapshot, now: Timestamp, steady: Instant, status_interval: Duration) -> PoolPlan {
    let mut plan = PoolPlan { filling: s.memory.filling, create_after: s.memory.create_after, ..PoolPlan::default() };
    if s.pool.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let (capacity, complaint) = Capacity::of(&s.pool.spec.capacity_spec);
    let pacing = s.pool.spec.scale_strategy.as_ref().and_then(|x| x.max_unavailable.as_ref());
    let sizing = pool::size(&capacity, pacing, &s.counts, s.demand, s.memory.filling);
    plan.filling = sizing.filling;
    back_off(s, steady, &mut plan);
    let paused = plan.create_after.is_some_and(|after| steady < after);
    if matches!(s.template, Template::Usable { .. }) && !paused {
        plan.create = sizing.create;
    }
    if paused && sizing.create > 0 {
        plan.wake_at = plan.create_after;
    }
    plan.delete.extend(s.spent.iter().map(|(p, used)| (p.clone(), why_spent(p, *used))));
    roll(s, sizing.desired, &mut plan);
    let rolled = plan.delete.len() - s.spent.len();
    let surplus = s.surplus.iter().filter(|p| s.outdated.iter().all(|o| o.uid != p.uid));
    let surplus: Vec<_> = surplus.take(sizing.shrink.saturating_sub(rolled)).cloned().collect();
    plan.delete.extend(surplus.into_iter().map(|p| (p, "the pool has more free pods than it keeps")));
    plan.notes.extend(s.spent.iter().filter(|(p, _)| p.evict).map(|(p, _)| {
        Note::normal("PodEvicted", format!("idle pod {} is replaced because its eviction was asked for", p.name))
    }));
    let old = s.pool.status.clone().unwrap_or_default();
    let status = status(s, &old, &capacity, complaint, sizing.at_capacity, now);
    if status != old {
        let due = s.memory.status_written.map(|written| written + status_interval);
        match due.filter(|due| steady < *due) {
            Some(due) => plan.wake_at = Some(plan.wake_at.map_or(due, |w| w.min(due))),
            None => {
                if !old.revision.is_empty() && old.revision != status.revision {
                    let message = format!(
                        "the template has changed: {} free pods are replaced, {} held ones when they come back",
                        s.counts.outdated, s.counts.held
                    );
                    plan.notes.push(Note::normal("RollingUpdate", message));
                }
                for c in status.conditions.iter().filter(|c| c.kind != "Ready") {
                    if old.conditions.iter().all(|o| o.kind != c.kind || o.reason != c.reason) {
                        let reason = c.reason.clone().unwrap_or_default();
                        plan.notes.push(Note::warning(reason, c.message.clone().unwrap_or_default()));
                    }
                }
                plan.status = Some(Box::new(status));
            }
        }
    }
    plan
}

/// Free pods of an older revision go: at once while they are not ready, else as `updateStrategy` paces it, the longest
/// ready first. Held ones are replaced when they come back.
fn roll(s: &PoolSnapshot, desired: usize, plan: &mut PoolPlan) {
    let pacing = s.pool.spec.update_strategy.as_ref().and_then(|u| u.max_unavailable.as_ref());
    let mut left = pool::replaceable(pacing, &s.counts, desired);
    for pod in &s.outdated {
        if pod.is_ready() {
            if left == 0 {
                continue;
            }
            left -= 1;
        }
        plan.delete.push((pod.clone(), "the pool's template has changed"));
    }
}

/// Pods that end before anybody had them are not made again at full speed.
fn back_off(s: &PoolSnapshot, steady: Instant, plan: &mut PoolPlan) {
    let false_start = |(pod, used): &(PodView, bool)| !used && !pod.evict && (pod.is_over() || pod.restarts > 0);
    if s.spent.iter().any(false_start) {
        plan.false_starts = s.memory.false_starts + 1;
        let pause = (1u64 << plan.false_starts.min(6)).min(LONGEST_PAUSE);
        plan.create_after = Some(steady + Duration::from_secs(pause));
    } else {
        // A pod that is ready and as new shows that the template can start.
        plan.false_starts = if s.counts.ready > 0 { 0 } else { s.memory.false_starts };
    }
}

fn why_spent(pod: &PodView, used: bool) -> &'static str {
    if used {
        "it was used"
    } else if pod.is_over() {
        "it has ended"
    } else if pod.evict {
        "its eviction was asked for"
    } else if pod.node_lost {
        "its node does not answer"
    } else {
        "a container of it was restarted before it was given out"
    }
}

fn status(
    s: &PoolSnapshot,
    old: &PoolStatus,
    capacity: &Capacity,
    complaint: Option<String>,
    at_capacity: bool,
    now: Timestamp,
) -> PoolStatus {
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let now = conditions::seconds(now);
    let mut new = Vec::new();
    let revision = match &s.template {
        Template::Usable { revision, .. } => revision.to_string(),
        Template::Malformed(message) => {
            new.push(Condition::holds("InvalidSpec", "InvalidTemplate", message, now.clone()));
            old.revision.clone()
        }
    };
    if let (Some(message), true) = (complaint, new.is_empty()) {
        new.push(Condition::holds("InvalidSpec", "ContradictoryCapacity", message, now.clone()));
    }
    if let Some(trouble) = &s.memory.create_error {
        new.push(Condition::holds("PodsFailing", &trouble.reason, &trouble.message, now.clone()));
    } else if let Some((pod, _)) = &s.failing
        && let Some(trouble) = pod.held_up()
    {
        let trouble = conditions::steady(&old.conditions, "PodsFailing", trouble);
        new.push(Condition::holds("PodsFailing", &trouble.reason, &trouble.message, now.clone()));
    } else if s.memory.false_starts > 0 {
        let message = "pods end before they are ready; new ones are created ever more slowly";
        new.push(Condition::holds("PodsFailing", "PodsEnd", message, now.clone()));
    }
    if at_capacity {
        let message = format!("more pods are wanted than poolMax {} allows", capacity.pool_max);
        new.push(Condition::holds("AtCapacity", "PoolMaxReached", message, now.clone()));
    }
    if s.counts.ready >= capacity.buffer_min && new.is_empty() {
        new.push(Condition::holds("Ready", "BufferFilled", "the pool has its buffer of ready pods", now.clone()));
    }
    if let Some(kind @ (RecycleType::Restart | RecycleType::Noop)) = s.pool.spec.recycle_strategy.map(|r| r.kind) {
        let message = format!(
            "recycleStrategy.type {kind:?} is not built: a pod that comes back is deleted and a new one made, as with Delete"
        );
        new.push(Condition::holds("RecycleUnsupported", "DeletedInstead", message, now));
    }
    PoolStatus {
        observed_generation: s.pool.metadata.generation.unwrap_or(0),
        revision,
        total: count(s.counts.ready + s.counts.starting + s.counts.held + s.counts.spent),
        allocated: count(s.counts.held),
        available: count(s.counts.ready),
        updated: count(s.updated),
        conditions: conditions::replace(&old.conditions, &OURS, new),
    }
}
