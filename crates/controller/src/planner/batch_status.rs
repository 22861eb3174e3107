//! What a BatchSandbox says of itself: counters, phase, conditions.

use std::collections::BTreeMap;

use api_types::crd::{BatchPhase, BatchSandboxStatus, Condition, Grant, GrantState};

use super::batch::{Mode, OnLoss, entrypoint_end, gave_up, needed, on_loss, pool_of};
use super::tasks::{self, Counters, TaskState, ended};
use super::{Note, conditions, obituary};
use crate::world::{BatchSnapshot, Exit, PodView, Shortage, Trouble};

/// Condition types that are written here.
const OURS: [&str; 5] = ["Ready", "Progressing", "PodFailed", "PoolAllocationPending", "InvalidSpec"];

/// Reason of a sandbox whose entrypoint failed.
const TASK_FAILED: &str = "TASK_FAILED";

/// The status that follows from what is seen and from the grants as they should be.
pub(super) fn compute(
    s: &BatchSnapshot,
    mode: &Mode,
    old: &BatchSandboxStatus,
    grants: &[Grant],
    notes: &mut Vec<Note>,
) -> BatchSandboxStatus {
    let pods: Vec<&PodView> = match mode {
        Mode::Own(_) => s.own.iter().filter_map(|uid| s.pods.get(uid)).collect(),
        _ => grants.iter().filter(|g| g.state.holds()).filter_map(|g| s.pods.get(g.pod_uid.as_str())).collect(),
    };
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let claimed = |g: &&Grant| g.state == GrantState::Claimed;
    let ready = grants.iter().filter(claimed).filter_map(|g| s.pods.get(g.pod_uid.as_str())).filter(|p| p.is_ready());
    let ready = count(ready.count());
    let counters = counters(s, grants);
    let open = needed(&s.batch, grants);
    let refusal = s.refusal.as_ref().map(|r| &r.trouble).filter(|_| matches!(mode, Mode::Own(_)) && !open.is_empty());
    let failed = failure(s, mode, old, grants, &pods)
        .or_else(|| refusal.filter(|t| !passes(t)).cloned())
        .or_else(|| remembered(old).filter(|_| open.is_empty() && !grants.iter().any(|g| g.state.holds())));
    let finished = open.is_empty()
        && s.batch.spec.replicas > 0
        && !grants.iter().any(|g| g.state.holds() && g.state != GrantState::Releasing);
    let phase = match (&failed, old.phase) {
        (_, Some(phase @ (BatchPhase::Pausing | BatchPhase::Paused | BatchPhase::Resuming))) => phase,
        (Some(_), _) => BatchPhase::Failed,
        (None, _) if ready > 0 => BatchPhase::Succeed,
        (None, Some(BatchPhase::Succeed)) if finished => BatchPhase::Succeed,
        (None, _) => BatchPhase::Pending,
    };
    let now = conditions::seconds(s.now);
    let mut new = Vec::new();
    match phase {
        BatchPhase::Succeed => new.push(Condition::holds("Ready", "PodsReady", "Sandbox is running", now.clone())),
        BatchPhase::Pending => {
            let unready = refusal.cloned().or_else(|| unready(s, grants));
            let why = unready.unwrap_or_else(|| Trouble::new("Creating", "Sandbox is being created"));
            new.push(Condition::holds("Progressing", &why.reason, why.message, now.clone()));
        }
        _ => {}
    }
    let mut termination = None;
    if let Some(trouble) = &failed {
        let said = conditions::steady(&old.conditions, "PodFailed", trouble);
        let trouble = said.with_exit(trouble.exit.clone());
        termination = Some(obituary::of_failure(&trouble, old.termination.as_ref(), s.now));
        new.push(Condition::holds("PodFailed", &trouble.reason, &trouble.message, now.clone()));
    }
    if let Mode::Invalid(trouble) = mode {
        new.push(Condition::holds("InvalidSpec", &trouble.reason, &trouble.message, now.clone()));
    }
    // What is promised is granted by this very write.
    if let Some(trouble) = s.shortage.filter(|_| !open.is_empty()).map(|shortage| waiting(s, shortage)) {
        new.push(Condition::holds("PoolAllocationPending", &trouble.reason, &trouble.message, now));
    }
    tell(&old.conditions, &new, notes);
    BatchSandboxStatus {
        observed_generation: s.batch.metadata.generation.unwrap_or(0),
        replicas: count(pods.len()),
        allocated: count(pods.iter().filter(|p| p.scheduled || p.ip.is_some()).count()),
        ready,
        task_running: counters.running,
        task_succeed: counters.succeed,
        task_failed: counters.failed,
        task_pending: counters.pending,
        task_unknown: counters.unknown,
        phase: Some(phase),
        pause_observed_generation: old.pause_observed_generation,
        conditions: conditions::replace(&old.conditions, &OURS, new),
        grants: grants.to_vec(),
        observed_at: old.observed_at.clone(),
        termination,
    }
}

/// Why it failed before: without its pod, and with nothing more wanted, a sandbox that failed has failed.
fn remembered(old: &BatchSandboxStatus) -> Option<Trouble> {
    let condition = old.conditions.iter().find(|c| c.kind == "PodFailed" && old.phase == Some(BatchPhase::Failed))?;
    Some(Trouble::new(condition.reason.clone()?, condition.message.clone().unwrap_or_default()))
}

/// Whether a refused creation is to be waited out: others must leave first.
fn passes(trouble: &Trouble) -> bool {
    matches!(trouble.reason.as_str(), "QuotaExceeded" | "TooManyRequests")
}

/// Why a sandbox that had its pods is not ready now.
fn unready(s: &BatchSnapshot, grants: &[Grant]) -> Option<Trouble> {
    let held = grants.iter().filter(|g| g.state == GrantState::Claimed);
    let pod = held.filter_map(|g| s.pods.get(g.pod_uid.as_str())).find(|p| !p.is_ready())?;
    Some(if pod.node_lost {
        Trouble::new("NodeLost", format!("the node of pod {} does not answer", pod.name))
    } else {
        Trouble::new("PodNotReady", format!("pod {} is not ready", pod.name))
    })
}

/// Warnings become events when they are new.
fn tell(old: &[Condition], new: &[Condition], notes: &mut Vec<Note>) {
    for condition in new.iter().filter(|c| !matches!(c.kind.as_str(), "Ready" | "Progressing")) {
        if old.iter().all(|c| c.kind != condition.kind || c.reason != condition.reason) {
            let reason = condition.reason.clone().unwrap_or_default();
            notes.push(Note::warning(reason, condition.message.clone().unwrap_or_default()));
        }
    }
}

fn counters(s: &BatchSnapshot, grants: &[Grant]) -> Counters {
    let has_tasks = s.batch.spec.task_template.is_some();
    let has_entrypoint = s.batch.spec.claim.as_ref().is_some_and(|c| !c.entrypoint.is_empty());
    let mut counters = Counters::default();
    if !has_tasks && !has_entrypoint {
        return counters;
    }
    let mut last: BTreeMap<i32, &Grant> = BTreeMap::new();
    for grant in grants {
        let entry = last.entry(grant.index).or_insert(grant);
        if grant.epoch >= entry.epoch {
            *entry = grant;
        }
    }
    for index in 0..s.batch.spec.replicas {
        let Some(grant) = last.get(&index) else {
            counters.pending += 1;
            continue;
        };
        match grant.reason.as_deref() {
            Some(ended::TASK_SUCCEEDED | ended::ENTRYPOINT_SUCCEEDED) => counters.succeed += 1,
            Some(ended::TASK_FAILED | ended::ENTRYPOINT_FAILED) => counters.failed += 1,
            _ if grant.state != GrantState::Claimed => counters.pending += 1,
            _ if !has_tasks => counters.running += 1,
            _ => {
                let executor = s.pods.get(grant.pod_uid.as_str()).is_some_and(|p| p.task_executor);
                match tasks::state(s.tasks.get(grant.pod_uid.as_str()), &tasks::name(&s.batch, index)) {
                    _ if !executor => counters.unknown += 1,
                    TaskState::Running => counters.running += 1,
                    TaskState::Unknown => counters.unknown += 1,
                    TaskState::Pending | TaskState::Ended(_) => counters.pending += 1,
                }
            }
        }
    }
    counters
}

/// Why the sandbox as a whole failed, if it did.
fn failure(
    s: &BatchSnapshot,
    mode: &Mode,
    old: &BatchSandboxStatus,
    grants: &[Grant],
    pods: &[&PodView],
) -> Option<Trouble> {
    if let Mode::Invalid(trouble) = mode {
        return Some(trouble.clone());
    }
    // What was said once is kept: the words came with the event, and only the reason is durable in the grant.
    let said = |reason: &str| {
        let condition = old.conditions.iter().find(|c| c.kind == "PodFailed" && c.reason.as_deref() == Some(reason))?;
        Some(Trouble::new(reason, condition.message.clone().unwrap_or_default()))
    };
    for index in 0..s.batch.spec.replicas {
        let of_index: Vec<&Grant> = grants.iter().filter(|g| g.index == index).collect();
        if of_index.iter().any(|g| g.state.holds()) || of_index.is_empty() {
            continue;
        }
        if let Some(trouble) = gave_up(&of_index) {
            return Some(trouble);
        }
        let last = of_index.iter().max_by_key(|g| g.epoch)?;
        let unclaimed = last.reason.as_deref().is_some_and(|r| r.starts_with("Unclaimed"));
        if last.state == GrantState::Lost && on_loss(&s.batch) == OnLoss::Fail && !unclaimed {
            let reason = last.reason.clone().unwrap_or_else(|| "PodDeleted".to_owned());
            return said(&reason).or_else(|| {
                let pod = s.pods.get(last.pod_uid.as_str());
                let message = format!("pod {} is gone", last.pod);
                let words = pod.map_or_else(|| Trouble::new("", &message), |p| p.epitaph("", &message));
                Some(Trouble::new(reason, words.message).with_exit(words.exit))
            });
        }
    }
    if s.batch.spec.replicas == 1
        && let Some(grant) =
            grants.iter().find(|g| g.reason.as_deref() == Some(ended::ENTRYPOINT_FAILED) && g.state.holds())
    {
        let words = entrypoint_end(s, grant).map(|(code, output)| {
            let output = output.trim_end();
            let tail = if output.is_empty() { String::new() } else { format!(": {output}") };
            let exit = Exit { container: None, code, signal: None, at: None };
            Trouble::new(TASK_FAILED, format!("the entrypoint ended with exit code {code}{tail}")).with_exit(Some(exit))
        });
        return words
            .or_else(|| said(TASK_FAILED))
            .or_else(|| Some(Trouble::new(TASK_FAILED, "the entrypoint failed")));
    }
    match mode {
        Mode::Own(_) => failing_pods(pods, grants),
        _ => None,
    }
}

/// Pods of its own that do not start: the most frequent reason, and the first pod that gave it.
fn failing_pods(pods: &[&PodView], grants: &[Grant]) -> Option<Trouble> {
    let granted = |p: &PodView| grants.iter().any(|g| *g.pod_uid == *p.uid);
    let mut reasons: BTreeMap<&str, Vec<(&PodView, &Trouble)>> = BTreeMap::new();
    for pod in pods.iter().filter(|p| !p.deleting && !granted(p)) {
        let ended = pod.ended.as_ref().filter(|_| pod.is_over());
        if let Some(trouble) = pod.failing.as_ref().or(ended) {
            reasons.entry(&trouble.reason).or_default().push((pod, trouble));
        }
    }
    let failing: usize = reasons.values().map(Vec::len).sum();
    let (reason, list) = reasons.into_iter().max_by_key(|(_, list)| list.len())?;
    let (pod, trouble) = list.first()?;
    Some(Trouble::new(
        reason,
        format!(
            "{failing}/{} observed pods failed; primary reason={reason}; sample pod={}; {}",
            pods.len(),
            pod.name,
            trouble.message
        ),
    ))
}

/// Why no pod comes, in words that change only when the reason does.
fn waiting(s: &BatchSnapshot, shortage: Shortage) -> Trouble {
    let pool = pool_of(&s.batch).unwrap_or_default();
    let trouble =
        s.pool_trouble.as_ref().map(|t| format!("; its pods do not start: {}", t.message)).unwrap_or_default();
    match shortage {
        Shortage::NoPool => {
            Trouble::new("PoolNotFound", format!("no Pool {pool:?} in this namespace; it is waited for"))
        }
        Shortage::PoolTerminating => Trouble::new("PoolTerminating", format!("Pool {pool:?} is being deleted")),
        Shortage::NeverFits { pool_max } => Trouble::new(
            "ExceedsPoolMax",
            format!("{} replicas are wanted and Pool {pool:?} may have {pool_max} pods", s.batch.spec.replicas),
        ),
        Shortage::AtCapacity { pool_max } => Trouble::new(
            "PoolAtCapacity",
            format!(
                "Pool {pool:?} has its poolMax of {pool_max} pods, and others hold them; one is waited for{trouble}"
            ),
        ),
        Shortage::Starting if s.pool_trouble.is_some() => {
            Trouble::new("PoolPodsFailing", format!("Pool {pool:?} has no ready pod{trouble}"))
        }
        Shortage::Starting => Trouble::new(
            "PoolHasNoReadyPods",
            format!("Pool {pool:?} has no ready pod to spare yet; pods are being started"),
        ),
    }
}
