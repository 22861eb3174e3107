//! What to do next for a pod: a pure function of its object, its containers, what is remembered, and the time.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::memory::Memory;
use crate::shim::proto::{PodState, Run};

/// How far the pod's sandbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxPhase {
    /// There is none.
    Absent,
    /// Its shim answers.
    Ready,
    /// It was taken down because the pod has finished.
    Stopped,
    /// Its shim died, and the containers with it.
    Lost,
}

/// What the decision is made from.
pub struct View<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Its containers.
    pub state: &'a PodState,
    /// What is remembered.
    pub memory: &'a Memory,
    /// Its sandbox.
    pub sandbox: SandboxPhase,
    /// Something is being started.
    pub starting: bool,
    /// The pod is being ended.
    pub ending: bool,
    /// Now.
    pub now: Timestamp,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make the sandbox.
    MakeSandbox,
    /// Start a container.
    Start {
        /// Container.
        container: String,
        /// Which run.
        attempt: u32,
    },
    /// End one container and let the restart policy decide what follows.
    Restart {
        /// Container.
        container: String,
        /// Why.
        reason: String,
    },
    /// End every container, gently first.
    End,
    /// Take the sandbox down and keep the logs.
    StopSandbox,
    /// Take everything away, and then the object.
    Remove,
}

/// The decision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// What to do now.
    pub actions: Vec<Action>,
    /// When to decide again if nothing happens.
    pub wake: Option<Timestamp>,
}

/// A pod's restart policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Whatever happened.
    Always,
    /// When it failed.
    OnFailure,
    /// Not at all.
    Never,
}

impl RestartPolicy {
    /// The pod's policy.
    pub fn of(pod: &Pod) -> Self {
        match pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) {
            Some("OnFailure") => Self::OnFailure,
            Some("Never") => Self::Never,
            _ => Self::Always,
        }
    }

    /// Whether a container that ended so is started again.
    pub fn restarts(self, exit_code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit_code != 0,
            Self::Never => false,
        }
    }
}

/// Whether an init container keeps running beside the others.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// When the pod's time is over.
pub fn deadline(pod: &Pod) -> Option<Timestamp> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    let start = pod.status.as_ref()?.start_time.as_ref()?.0;
    Some(start + SignedDuration::from_secs(seconds))
}

/// Decides.
pub fn decide(view: &View<'_>) -> Decision {
    let mut decision = Decision::default();
    let running = view.state.containers.values().flatten().any(Run::running) && view.sandbox == SandboxPhase::Ready;
    if view.pod.metadata.deletion_timestamp.is_some() {
        if view.ending || view.starting {
            return decision;
        }
        decision.actions.push(if running { Action::End } else { Action::Remove });
        return decision;
    }
    if matches!(view.sandbox, SandboxPhase::Stopped | SandboxPhase::Lost) || view.ending {
        return decision;
    }
    if let Some(deadline) = deadline(view.pod) {
        if view.now >= deadline {
            decision.actions.push(if running { Action::End } else { Action::StopSandbox });
            return decision;
        }
        sooner(&mut decision.wake, deadline);
    }
    if view.starting {
        return decision;
    }
    if view.sandbox == SandboxPhase::Absent {
        match &view.memory.sandbox {
            Some(waiting) if view.now < waiting.until => sooner(&mut decision.wake, waiting.until),
            _ => decision.actions.push(Action::MakeSandbox),
        }
        return decision;
    }
    if !init(view, &mut decision) {
        return decision;
    }
    let Some(spec) = &view.pod.spec else { return decision };
    let policy = RestartPolicy::of(view.pod);
    let mut finished = true;
    for container in &spec.containers {
        finished &= !advance(view, container, policy, &mut decision);
    }
    if finished {
        decision.actions.push(if running { Action::End } else { Action::StopSandbox });
    }
    // The shim takes one order at a time; the next start is decided when this one is done.
    let mut started = false;
    decision.actions.retain(|action| !matches!(action, Action::Start { .. }) || !std::mem::replace(&mut started, true));
    decision
}

/// Brings the init containers on; true when all have done their work.
fn init(view: &View<'_>, decision: &mut Decision) -> bool {
    let Some(spec) = &view.pod.spec else { return false };
    for container in spec.init_containers.iter().flatten() {
        if is_sidecar(container) {
            advance(view, container, RestartPolicy::Always, decision);
            let up = view.state.current(&container.name).is_some_and(Run::running);
            if !up || !view.memory.containers.get(&container.name).is_some_and(|memory| memory.started) {
                return false;
            }
            continue;
        }
        if view.state.current(&container.name).and_then(|run| run.outcome.as_ref()).is_some_and(|o| o.exit_code == 0) {
            continue;
        }
        // A failed init container is started again unless the pod's containers never are.
        let policy = match RestartPolicy::of(view.pod) {
            RestartPolicy::Never => RestartPolicy::Never,
            _ => RestartPolicy::OnFailure,
        };
        let pending = advance(view, container, policy, decision);
        if !pending {
            let running = view.state.containers.values().flatten().any(Run::running);
            decision.actions.push(if running { Action::End } else { Action::StopSandbox });
        }
        return false;
    }
    true
}

/// Brings one container on; false when it has ended for good.
fn advance(view: &View<'_>, container: &Container, policy: RestartPolicy, decision: &mut Decision) -> bool {
    let name = &container.name;
    let memory = view.memory.containers.get(name);
    if let Some(waiting) = memory.and_then(|memory| memory.waiting.as_ref())
        && view.now < waiting.until
    {
        sooner(&mut decision.wake, waiting.until);
        return true;
    }
    let Some(run) = view.state.current(name) else {
        decision.actions.push(Action::Start { container: name.clone(), attempt: 0 });
        return true;
    };
    let Some(outcome) = &run.outcome else {
        if let Some(reason) = memory.filter(|m| m.probed == run.id).and_then(|m| m.unhealthy.clone()) {
            decision.actions.push(Action::Restart { container: name.clone(), reason });
        }
        return true;
    };
    if !policy.restarts(outcome.exit_code) {
        return false;
    }
    let at = memory.map_or(outcome.finished_at, |m| m.backoff.next_start(run.started_at, outcome.finished_at));
    if view.now < at {
        sooner(&mut decision.wake, at);
    } else {
        decision.actions.push(Action::Start { container: name.clone(), attempt: run.attempt + 1 });
    }
    true
}

fn sooner(wake: &mut Option<Timestamp>, at: Timestamp) {
    *wake = Some(wake.map_or(at, |wake| wake.min(at)));
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
