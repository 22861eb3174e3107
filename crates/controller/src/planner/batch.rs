//! What a BatchSandbox needs next: grants, claims, releases, its status and its projections.

use std::collections::BTreeMap;

use api_types::crd::{BatchPhase, BatchSandbox, BatchSandboxStatus, Grant, GrantState, PodNames};
use api_types::execd::EntrypointState;
use api_types::names::{annotations, finalizers};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use tokio::time::Instant;

use super::tasks::{self, TaskState, ended};
use super::{Note, batch_status, inherit, teardown, template};
use crate::guard::{Guard, stands};
use crate::world::{BatchSnapshot, ClaimSeen, PodView, Trouble, Uid, is_inherited};

/// Claims that may be lost in a row for one replica before the sandbox is given up.
const MAX_ATTEMPTS: usize = 5;

/// How long pods may be on their way before the status says so: most grants take less, and their
/// BatchSandbox is spared a write.
const QUIET: SignedDuration = SignedDuration::from_secs(1);

/// Begins the reason of a grant that was lost before its pod had accepted the claim.
const UNCLAIMED: &str = "Unclaimed";

/// The daemons' word that what the claim brings can't be used: another pod would say the same.
pub const CLAIM_REJECTED: &str = "ClaimRejected";

/// The pod was made by an older controller and cannot be told what the claim brings: a newer pod can, and the older
/// ones are few and get fewer.
pub const OLD_DAEMON: &str = "OldDaemon";

/// Settings of the planner.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Public key that goes into the pods we make.
    pub daemon_key: String,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Delete the BatchSandbox.
    Delete {
        /// Why.
        why: &'static str,
    },
    /// Set the finalizers to exactly these.
    Finalizers(Vec<String>),
    /// Write the status.
    Status(Box<BatchSandboxStatus>),
    /// Create one of its own pods.
    CreatePod(Box<Pod>),
    /// Delete a pod.
    DeletePod {
        /// The pod.
        pod: PodView,
        /// Why.
        why: &'static str,
    },
    /// Tell a pod its owner.
    Claim {
        /// The pod.
        pod: PodView,
        /// Epoch of the grant.
        epoch: i64,
    },
    /// Label a pod with its holder.
    Mark(PodView),
    /// Write annotations.
    Annotate(BTreeMap<String, String>),
    /// Give promised pods back.
    ReturnReserved(Vec<Uid>),
    /// Tell people.
    Note(Note),
}

/// Tasks that a pod's executor is to have, and to be watched for.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskWatch {
    /// The pod.
    pub pod: PodView,
    /// All of its tasks.
    pub tasks: Vec<api_types::tasks::Task>,
}

/// What to do for a BatchSandbox.
#[derive(Debug, Default)]
pub struct BatchPlan {
    /// In this order.
    pub actions: Vec<Action>,
    /// Pods whose entrypoint is to be watched.
    pub entrypoint_watches: Vec<PodView>,
    /// Pods whose tasks are to be set and watched.
    pub task_watches: Vec<TaskWatch>,
    /// When to look again if nothing happens.
    pub wake_at: Option<Timestamp>,
    /// When to try again what was refused.
    pub retry_at: Option<Instant>,
}

/// Where its pods come from.
pub(super) enum Mode {
    /// A pool.
    Pooled,
    /// Its own template.
    Own(Box<PodTemplateSpec>),
    /// Nowhere: the spec can't be used.
    Invalid(Trouble),
}

/// What becomes of a sandbox whose pod was lost after it was claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLoss {
    /// It failed: somebody's files and processes were in that pod, and an empty one is no replacement.
    Fail,
    /// It gets another pod: one of many, or one whose task starts anew.
    Replace,
}

/// One single sandbox without task fails with its pod; batches and tasks get another pod.
pub fn on_loss(batch: &BatchSandbox) -> OnLoss {
    if batch.spec.replicas <= 1 && batch.spec.task_template.is_none() { OnLoss::Fail } else { OnLoss::Replace }
}

/// The pool it takes pods from.
pub fn pool_of(batch: &BatchSandbox) -> Option<&str> {
    batch.spec.pool_ref.as_deref().filter(|p| !p.is_empty() && *p != "*")
}

/// How many pods it wants from its pool beyond those it holds.
pub fn need(batch: &BatchSandbox) -> usize {
    if batch.metadata.deletion_timestamp.is_some() || check(batch).is_err() || is_inherited(batch) || is_paused(batch) {
        return 0;
    }
    needed(batch, batch.status.as_ref().map_or(&[], |s| &s.grants)).len()
}

/// Whether an older controller paused it, or began to. Its pods are gone on purpose.
pub(super) fn is_paused(batch: &BatchSandbox) -> bool {
    let phase = batch.status.as_ref().and_then(|s| s.phase);
    matches!(phase, Some(BatchPhase::Pausing | BatchPhase::Paused | BatchPhase::Resuming))
}

/// Whether a lost pod stays until its sandbox goes, so that people can look at what is left of it.
pub(crate) fn is_kept(batch: &BatchSandbox, grant: &Grant) -> bool {
    // Nothing failed where the replica is not wanted any more.
    let wanted = grant.index < batch.spec.replicas;
    let known = grant.state == GrantState::Lost && !grant.pod_uid.is_empty() && !unclaimed(grant);
    known && wanted && on_loss(batch) == OnLoss::Fail
}

/// The indexes that want a pod.
pub(super) fn needed(batch: &BatchSandbox, grants: &[Grant]) -> Vec<i32> {
    let mut by_index: BTreeMap<i32, Vec<&Grant>> = BTreeMap::new();
    for grant in grants {
        by_index.entry(grant.index).or_default().push(grant);
    }
    let wants = |index: &i32| {
        let Some(grants) = by_index.get(index) else { return true };
        if grants.iter().any(|g| g.state.holds()) {
            return false;
        }
        let Some(last) = grants.iter().max_by_key(|g| g.epoch) else { return true };
        match last.state {
            GrantState::Released => last.reason.as_deref() == Some(SCALED_DOWN),
            GrantState::Lost if unclaimed(last) => gave_up(grants).is_none(),
            GrantState::Lost => on_loss(batch) == OnLoss::Replace,
            _ => false,
        }
    };
    (0..batch.spec.replicas).filter(wants).collect()
}

/// Reason of a grant that was given back because fewer replicas are wanted.
const SCALED_DOWN: &str = "ScaledDown";
/// Reason of a grant that was given back because somebody asked for it.
const RELEASE_REQUESTED: &str = "ReleaseRequested";

fn unclaimed(grant: &Grant) -> bool {
    grant.reason.as_deref().is_some_and(|r| r.starts_with(UNCLAIMED))
}

/// Why an index gets no further pod although it has none, from its grants.
pub(super) fn gave_up(grants: &[&Grant]) -> Option<Trouble> {
    let mut lost: Vec<_> = grants.iter().filter(|g| g.state == GrantState::Lost).collect();
    lost.sort_by_key(|g| std::cmp::Reverse(g.epoch));
    let told = |g: &&&&Grant| !g.reason.as_deref().is_some_and(|r| r.ends_with(OLD_DAEMON));
    let row = lost.iter().take_while(|g| unclaimed(g)).filter(told).count();
    let last = lost.first().and_then(|g| g.reason.clone()).unwrap_or_default();
    if last.ends_with(CLAIM_REJECTED) {
        return Some(Trouble::new(CLAIM_REJECTED, "the pod refused what the claim brings"));
    }
    (row >= MAX_ATTEMPTS && stands(Guard::Attempts))
        .then(|| Trouble::new("ClaimFailed", format!("{row} pods in a row could not be claimed, the last one: {last}")))
}

/// Whether the spec can be used at all.
fn check(batch: &BatchSandbox) -> Result<(), Trouble> {
    let invalid = |message: String| Trouble::new("InvalidSpec", message);
    if batch.spec.pool_ref.as_deref() == Some("*") {
        return Err(Trouble::new(
            "PoolChoiceUnsupported",
            "spec.poolRef: \"*\" is not supported here; name a Pool of this namespace",
        ));
    }
    if batch.spec.replicas < 0 {
        return Err(invalid("spec.replicas is negative".to_owned()));
    }
    let bad_name = |name: &&String| name.is_empty() || name.contains(['=', '\0']);
    if let Some(name) = batch.spec.claim.iter().flat_map(|c| c.env.keys()).find(bad_name) {
        return Err(invalid(format!("spec.claim.env: {name:?} is no name of a variable")));
    }
    tasks::check(batch).map_err(invalid)
}

fn mode(batch: &BatchSandbox) -> Mode {
    if let Err(trouble) = check(batch) {
        return Mode::Invalid(trouble);
    }
    if pool_of(batch).is_some() {
        return Mode::Pooled;
    }
    match batch.spec.template.as_ref().map(|raw| template::parse(&raw.0, "spec.template")) {
        Some(Ok(template)) => Mode::Own(Box::new(template)),
        Some(Err(message)) => Mode::Invalid(Trouble::new("InvalidSpec", message)),
        None => Mode::Invalid(Trouble::new("InvalidSpec", "neither spec.poolRef nor spec.template is given")),
    }
}

/// Plans what to do.
pub fn plan(s: &BatchSnapshot, settings: &Settings) -> BatchPlan {
    if s.batch.metadata.deletion_timestamp.is_some() {
        return teardown::plan(s);
    }
    let mut plan = BatchPlan::default();
    if let Some(expire) = &s.batch.spec.expire_time {
        if expire.0 <= s.now && stands(Guard::Expiry) {
            plan.actions.push(Action::Delete { why: "spec.expireTime has passed" });
            return plan;
        }
        plan.wake_at = Some(expire.0).filter(|_| stands(Guard::Expiry));
    }
    if is_paused(&s.batch) {
        // Pausing is not built: what an older controller paused is left as it is, and not resurrected empty.
        return plan;
    }
    let mode = mode(&s.batch);
    if let Some(list) = missing_finalizers(s, &mode) {
        plan.actions.push(Action::Finalizers(list));
        return plan;
    }
    let old = s.batch.status.clone().unwrap_or_default();
    let mut draft = Draft { grants: old.grants.clone(), notes: Vec::new() };
    if let Some(inherited) = &s.inherited {
        return inherit::plan(s, &mode, &old, inherited, plan);
    }
    draft.settle(s, &mut plan);
    draft.release_ended_tasks(s);
    match &mode {
        Mode::Pooled => draft.take_promised(s, &mut plan),
        Mode::Own(template) => draft.make_own(s, template, settings, &mut plan),
        Mode::Invalid(_) => {}
    }
    draft.prune(s);
    let mut status = batch_status::compute(s, &mode, &old, &draft.grants, &mut draft.notes);
    if is_first_look(&old) {
        status.observed_at = s.times.seen.map(micros);
    }
    let durable = status == old;
    let quiet = is_first_look(&old) && may_stay_quiet(s, &draft);
    if !durable && !quiet {
        plan.actions.insert(0, Action::Status(Box::new(status)));
        // What is told is what this write makes so; it is told once, after it.
        plan.actions.extend(draft.notes.into_iter().map(Action::Note));
    }
    if let (Some(_), true) = (s.shortage, is_first_look(&old)) {
        let quiet_until = created(s).saturating_add(QUIET).unwrap_or(Timestamp::MAX);
        plan.wake_at = Some(plan.wake_at.map_or(quiet_until, |w| w.min(quiet_until)));
    }
    if durable {
        follow_grants(s, &old, &mut plan);
    }
    watch(s, &old, &mut plan);
    plan
}

/// A time as Kubernetes keeps it where seconds are too coarse: whole microseconds.
pub(super) fn micros(time: Timestamp) -> MicroTime {
    MicroTime(Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time))
}

fn created(s: &BatchSnapshot) -> Timestamp {
    s.batch.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0)
}

fn is_first_look(old: &BatchSandboxStatus) -> bool {
    old.observed_generation == 0 && old.grants.is_empty()
}

/// Pods are on their way and the sandbox is young: nothing is worth a write yet.
fn may_stay_quiet(s: &BatchSnapshot, draft: &Draft) -> bool {
    use crate::world::Shortage;
    let soft = matches!(s.shortage, Some(Shortage::Starting)) && s.pool_trouble.is_none();
    let young = s.now < created(s).saturating_add(QUIET).unwrap_or(Timestamp::MAX);
    draft.grants.is_empty() && soft && young
}

fn missing_finalizers(s: &BatchSnapshot, mode: &Mode) -> Option<Vec<String>> {
    let mut list = s.batch.metadata.finalizers.clone().unwrap_or_default();
    let before = list.len();
    let mut want = |f: &str| {
        if !list.iter().any(|x| x == f) {
            list.push(f.to_owned());
        }
    };
    if matches!(mode, Mode::Pooled) && stands(Guard::FinalizerFirst) {
        want(finalizers::POOL_ALLOCATION);
    }
    if s.batch.spec.task_template.is_some() && !matches!(mode, Mode::Invalid(_)) {
        want(finalizers::TASK_CLEANUP);
    }
    (list.len() != before).then_some(list)
}

/// The grants as they should be.
struct Draft {
    grants: Vec<Grant>,
    notes: Vec<Note>,
}

impl Draft {
    /// What happened to each grant: lost, released, claimed.
    fn settle(&mut self, s: &BatchSnapshot, plan: &mut BatchPlan) {
        let requested = release_requests(&s.batch);
        let outcome = |g: &Grant| {
            let seen =
                s.claims.get(g.pod_uid.as_str()).filter(|(epoch, _)| *epoch == g.epoch || !stands(Guard::ClaimEpoch));
            let seen = seen.map(|(_, seen)| seen);
            seen.filter(|seen| **seen != ClaimSeen::InFlight)
        };
        // All claims of a batch become durable in one write, so the last one is waited for.
        let all_answered = self
            .grants
            .iter()
            .filter(|g| g.state == GrantState::Granted)
            .all(|g| outcome(g).is_some() || loss(s, g).is_some());
        for grant in &mut self.grants {
            if !grant.state.holds() {
                continue;
            }
            let pod = s.pods.get(grant.pod_uid.as_str());
            if grant.state == GrantState::Releasing {
                match pod {
                    Some(pod) if !pod.deleting && stands(Guard::ReleaseProtocol) => {
                        plan.actions.push(Action::DeletePod { pod: pod.clone(), why: "it was given back" });
                    }
                    _ => grant.state = GrantState::Released,
                }
                continue;
            }
            if let Some(trouble) = loss(s, grant) {
                // A pod made for this sandbox that ended ran its program, and would again: that is told, not repeated.
                let own_end = on_loss(&s.batch) == OnLoss::Fail
                    && s.own.iter().any(|uid| **uid == *grant.pod_uid)
                    && pod.is_some_and(PodView::is_over);
                let before_claim = grant.state == GrantState::Granted && !own_end;
                self.notes.push(Note::warning(
                    "PodLost",
                    format!(
                        "pod {} of replica {} was lost: {}: {}",
                        grant.pod, grant.index, trouble.reason, trouble.message
                    ),
                ));
                grant.state = GrantState::Lost;
                grant.reason =
                    Some(if before_claim { format!("{UNCLAIMED}: {}", trouble.reason) } else { trouble.reason });
                continue;
            }
            if grant.index >= s.batch.spec.replicas {
                grant.state = GrantState::Releasing;
                grant.reason = Some(SCALED_DOWN.to_owned());
                continue;
            }
            if requested.contains(&grant.pod) {
                grant.state = GrantState::Releasing;
                grant.reason.get_or_insert_with(|| RELEASE_REQUESTED.to_owned());
                continue;
            }
            if grant.state == GrantState::Granted && all_answered {
                match outcome(grant) {
                    Some(ClaimSeen::Accepted(_)) => {
                        grant.state = GrantState::Claimed;
                        let answered = s.times.answered.get(grant.pod_uid.as_str()).copied();
                        grant.claimed_at = Some(micros(answered.unwrap_or(s.now)));
                        grant.ready_at = Some(micros(s.now));
                    }
                    Some(ClaimSeen::Refused(trouble)) => {
                        self.notes.push(Note::warning(
                            "ClaimRefused",
                            format!("pod {} was not claimed: {}: {}", grant.pod, trouble.reason, trouble.message),
                        ));
                        grant.state = GrantState::Lost;
                        grant.reason = Some(format!("{UNCLAIMED}: {}", trouble.reason));
                    }
                    _ => {}
                }
            }
        }
    }

    /// Tasks and entrypoints that have ended; with policy Release their pods are given back.
    fn release_ended_tasks(&mut self, s: &BatchSnapshot) {
        let release = s.batch.spec.task_resource_policy_when_completed == "Release";
        for grant in self.grants.iter_mut().filter(|g| g.state == GrantState::Claimed) {
            if has_ended(grant) {
                continue;
            }
            if s.batch.spec.task_template.is_some() {
                let name = tasks::name(&s.batch, grant.index);
                let TaskState::Ended(end) = tasks::state(s.tasks.get(grant.pod_uid.as_str()), &name) else { continue };
                if end.exit_code == 0 {
                    grant.reason = Some(ended::TASK_SUCCEEDED.to_owned());
                } else {
                    let trouble = tasks::failure(&name, &end);
                    self.notes.push(Note::warning(trouble.reason.clone(), trouble.message));
                    grant.reason = Some(ended::TASK_FAILED.to_owned());
                }
                if release {
                    grant.state = GrantState::Releasing;
                }
            } else if let Some((code, _)) = entrypoint_end(s, grant) {
                let word = if code == 0 { ended::ENTRYPOINT_SUCCEEDED } else { ended::ENTRYPOINT_FAILED };
                grant.reason = Some(word.to_owned());
            }
        }
    }

    /// Grants the promised pods.
    fn take_promised(&mut self, s: &BatchSnapshot, plan: &mut BatchPlan) {
        let mut indexes = needed(&s.batch, &self.grants).into_iter();
        let mut unwanted = Vec::new();
        for uid in &s.reserved {
            let pod = s.pods.get(uid).filter(|p| p.is_ready() && p.restarts == 0 || !stands(Guard::PromiseChecked));
            match pod.and_then(|pod| indexes.next().map(|index| (pod, index))) {
                Some((pod, index)) => self.grant(s, pod, index),
                None => unwanted.push(uid.clone()),
            }
        }
        if !unwanted.is_empty() {
            plan.actions.push(Action::ReturnReserved(unwanted));
        }
    }

    /// Creates the pods that are missing, grants those that are ready, and deletes those too many.
    fn make_own(&mut self, s: &BatchSnapshot, template: &PodTemplateSpec, settings: &Settings, plan: &mut BatchPlan) {
        let own: Vec<&PodView> = s.own.iter().filter_map(|uid| s.pods.get(uid)).collect();
        let needed = needed(&s.batch, &self.grants);
        for pod in &own {
            let index = pod.index.unwrap_or(-1);
            let known = self.grants.iter().rfind(|g| *g.pod_uid == *pod.uid).map(|g| g.state);
            if pod.deleting || known.is_some_and(GrantState::holds) {
                continue;
            }
            if index < 0 || index >= s.batch.spec.replicas {
                plan.actions.push(Action::DeletePod { pod: (*pod).clone(), why: "fewer replicas are wanted" });
            } else if known.is_some() && needed.contains(&index) {
                plan.actions.push(Action::DeletePod { pod: (*pod).clone(), why: "it was lost and is replaced" });
            } else if known.is_none() && pod.is_ready() && needed.contains(&index) {
                self.grant(s, pod, index);
                // A live pod of an older controller has an owner already, and no key by which to tell it.
                if let Some(grant) = self.grants.last_mut().filter(|_| inherit::is_running_of_old(s, pod)) {
                    grant.state = GrantState::Claimed;
                }
            }
        }
        if let Some(refusal) = s.refusal.as_ref().filter(|r| s.steady < r.after) {
            plan.retry_at = Some(refusal.after);
            return;
        }
        for index in needed {
            if own.iter().any(|p| p.index == Some(index)) {
                continue;
            }
            match template::batch_pod(&s.batch, template, index, &settings.daemon_key) {
                Ok(pod) => plan.actions.push(Action::CreatePod(Box::new(pod))),
                Err(message) => self.notes.push(Note::warning("InvalidSpec", message)),
            }
        }
    }

    fn grant(&mut self, s: &BatchSnapshot, pod: &PodView, index: i32) {
        let epoch = self.grants.iter().map(|g| g.epoch).max().unwrap_or(0) + 1;
        let ready = s.times.ready.get(&pod.uid).copied();
        self.grants.push(Grant {
            index,
            pod: pod.name.to_string(),
            pod_uid: pod.uid.to_string(),
            pod_ip: pod.ip.clone(),
            epoch,
            state: GrantState::Granted,
            reason: restarted_before(pod),
            pod_ready_at: ready.map(micros),
            granted_at: Some(micros(s.now)),
            waited_for: waited_for(s, ready),
            ..Grant::default()
        });
    }

    /// Forgets what is over: of each index the last few grants stay, and whatever has a pod still.
    fn prune(&mut self, s: &BatchSnapshot) {
        let mut kept: BTreeMap<i32, usize> = BTreeMap::new();
        let mut keep = vec![true; self.grants.len()];
        for (at, grant) in self.grants.iter().enumerate().rev() {
            let n = kept.entry(grant.index).or_default();
            keep[at] = grant.state.holds() || *n < MAX_ATTEMPTS || s.pods.contains_key(grant.pod_uid.as_str());
            *n += 1;
        }
        let mut keep = keep.into_iter();
        self.grants.retain(|_| keep.next().unwrap_or(true));
    }
}

/// What a grant of now had to wait for, if for anything: what the sandbox said it waits for, or its pod.
fn waited_for(s: &BatchSnapshot, ready: Option<Timestamp>) -> Option<String> {
    let conditions = s.batch.status.iter().flat_map(|s| &s.conditions);
    let said = conditions.filter(|c| c.kind == "PoolAllocationPending").find_map(|c| c.reason.clone());
    let pod_came_later = ready.zip(s.times.seen).is_some_and(|(ready, seen)| ready > seen);
    said.or_else(|| pod_came_later.then(|| "PoolHasNoReadyPods".to_owned()).filter(|_| pool_of(&s.batch).is_some()))
}

/// Begins the reason of a grant whose pod had restarts when it was granted, followed by how many.
const RESTARTED_BEFORE: &str = "Restarts=";

/// What a grant remembers of the restarts that its pod has had.
pub(super) fn restarted_before(pod: &PodView) -> Option<String> {
    (pod.restarts > 0).then(|| format!("{RESTARTED_BEFORE}{}", pod.restarts))
}

fn has_ended(grant: &Grant) -> bool {
    matches!(
        grant.reason.as_deref(),
        Some(ended::TASK_SUCCEEDED | ended::TASK_FAILED | ended::ENTRYPOINT_SUCCEEDED | ended::ENTRYPOINT_FAILED)
    )
}

/// Exit code and last words of a grant's entrypoint, once it has ended.
pub(super) fn entrypoint_end(s: &BatchSnapshot, grant: &Grant) -> Option<(i32, String)> {
    s.batch.spec.claim.as_ref().filter(|c| !c.entrypoint.is_empty())?;
    // One that could not even be started is told by the answer to the claim.
    let told = || match s.claims.get(grant.pod_uid.as_str()) {
        Some((epoch, ClaimSeen::Accepted(Some(status)))) if *epoch == grant.epoch => Some(status),
        _ => None,
    };
    let status = s.entrypoints.get(grant.pod_uid.as_str()).or_else(told)?;
    (status.state == EntrypointState::Exited)
        .then(|| (status.exit_code.unwrap_or(-1), status.message.clone().unwrap_or_default()))
}

/// Why a held pod is lost, if it is.
fn loss(s: &BatchSnapshot, grant: &Grant) -> Option<Trouble> {
    let Some(pod) = s.pods.get(grant.pod_uid.as_str()) else {
        let told = s.epitaphs.get(grant.pod_uid.as_str()).cloned();
        return Some(told.unwrap_or_else(|| Trouble::new("PodDeleted", format!("pod {} is gone", grant.pod))));
    };
    if pod.deleting {
        return Some(pod.epitaph("PodDeleted", &format!("pod {} was deleted", grant.pod)));
    }
    if pod.is_over() {
        return Some(pod.epitaph("PodEnded", &format!("pod {} has ended", grant.pod)));
    }
    let before = grant.reason.as_deref().and_then(|r| r.strip_prefix(RESTARTED_BEFORE)).and_then(|n| n.parse().ok());
    if pod.restarts > before.unwrap_or(0) && stands(Guard::RestartIsLoss) {
        return Some(pod.epitaph("ContainerRestarted", &format!("a container of pod {} was restarted", grant.pod)));
    }
    None
}

/// Pods whose release somebody asked for by annotation. What can't be read asks for nothing.
fn release_requests(batch: &BatchSandbox) -> Vec<String> {
    let text = batch.metadata.annotations.as_ref().and_then(|a| a.get(annotations::ALLOC_RELEASE));
    text.and_then(|t| serde_json::from_str::<PodNames>(t).ok()).unwrap_or_default().pods
}

/// What follows from durable grants: claims, labels, projections.
fn follow_grants(s: &BatchSnapshot, status: &BatchSandboxStatus, plan: &mut BatchPlan) {
    let mut open = false;
    for grant in status.grants.iter().filter(|g| g.state.holds()) {
        let Some(pod) = s.pods.get(grant.pod_uid.as_str()) else { continue };
        if grant.state == GrantState::Granted {
            open = true;
            if s.claims.get(grant.pod_uid.as_str()).is_none_or(|(epoch, _)| *epoch != grant.epoch) {
                plan.actions.push(Action::Claim { pod: pod.clone(), epoch: grant.epoch });
            }
        } else if grant.state == GrantState::Claimed && pod.claimed_by.as_deref() != Some(&*s.uid) && !pod.deleting {
            plan.actions.push(Action::Mark(pod.clone()));
        }
    }
    if !open {
        let wanted = projections(&s.batch, status);
        if !wanted.is_empty() {
            plan.actions.push(Action::Annotate(wanted));
        }
    }
}

/// The annotations of older readers that do not say yet what the status says.
fn projections(batch: &BatchSandbox, status: &BatchSandboxStatus) -> BTreeMap<String, String> {
    let have = batch.metadata.annotations.clone().unwrap_or_default();
    let mut grants: Vec<&Grant> = status.grants.iter().collect();
    grants.sort_by_key(|g| g.epoch);
    let mut wanted = BTreeMap::new();
    let mut want = |key: &str, text: Option<String>| {
        if let Some(text) = text
            && have.get(key) != Some(&text)
        {
            wanted.insert(key.to_owned(), text);
        }
    };
    let names = |keep: &dyn Fn(&Grant) -> bool| -> Vec<String> {
        grants.iter().filter(|g| keep(g)).map(|g| g.pod.clone()).collect()
    };
    let list = |pods: Vec<String>, pool_ref: Option<String>| {
        (!pods.is_empty()).then(|| serde_json::to_string(&PodNames { pool_ref, pods }).unwrap_or_default())
    };
    if let Some(pool) = pool_of(batch) {
        want(annotations::ALLOC_STATUS, list(names(&|_| true), Some(pool.to_owned())));
        let release = names(&|g| matches!(g.state, GrantState::Releasing | GrantState::Released));
        let released = names(&|g| g.state == GrantState::Released);
        // What others asked for stays; it is only ever added to.
        let mut asked = release_requests(batch);
        asked.extend(release.into_iter().filter(|p| !asked.contains(p)).collect::<Vec<_>>());
        asked.sort();
        want(annotations::ALLOC_RELEASE, list(asked, None));
        want(annotations::ALLOC_RELEASED, list(released, None));
    }
    let mut addresses: BTreeMap<i32, &str> = BTreeMap::new();
    for grant in grants.iter().filter(|g| g.state == GrantState::Claimed) {
        addresses.insert(grant.index, grant.pod_ip.as_deref().unwrap_or_default());
    }
    let last = addresses.keys().max().copied().unwrap_or(-1);
    let array: Vec<&str> = (0..=last).map(|i| addresses.get(&i).copied().unwrap_or_default()).collect();
    // An annotation that never was need not say that there is nothing.
    if !array.is_empty() || have.contains_key(annotations::ENDPOINTS) {
        want(annotations::ENDPOINTS, serde_json::to_string(&array).ok());
    }
    wanted
}

/// What is to be watched in the pods.
fn watch(s: &BatchSnapshot, status: &BatchSandboxStatus, plan: &mut BatchPlan) {
    let has_entrypoint = s.batch.spec.claim.as_ref().is_some_and(|c| !c.entrypoint.is_empty());
    for grant in status.grants.iter().filter(|g| g.state == GrantState::Claimed && !has_ended(g)) {
        let Some(pod) = s.pods.get(grant.pod_uid.as_str()).filter(|p| !p.deleting) else { continue };
        match tasks::task(&s.batch, grant.index) {
            Ok(Some(task)) if pod.task_executor => {
                plan.task_watches.push(TaskWatch { pod: pod.clone(), tasks: vec![task] });
            }
            Ok(None) if has_entrypoint => plan.entrypoint_watches.push(pod.clone()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
