//! What to do next for a pod: a pure function of its object, its containers, what is remembered, and the time.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::memory::Memory;
use super::policy::{Verdict, is_sidecar, verdict};
use super::status;
use crate::shim::proto::{PodState, Run};

/// How far the pod's sandbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxPhase {
    /// There is none.
    Absent,
    /// Its shim answers.
    Ready,
    /// It is being taken down because the pod has finished.
    Stopping,
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
    /// Forget how the containers have ended: all of them start afresh.
    Reset,
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
    if matches!(view.sandbox, SandboxPhase::Stopping | SandboxPhase::Stopped | SandboxPhase::Lost)
        || view.ending
        || status::rejection(view.pod).is_some()
    {
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
    if starts_afresh(view.pod, view.state) {
        decision.actions.push(if running { Action::End } else { Action::Reset });
        return decision;
    }
    // When the pod's work is done its sidecars are ended and do not come again.
    if work_is_done(view) {
        decision.actions.push(if running { Action::End } else { Action::StopSandbox });
        return decision;
    }
    // A hook belongs to its container's start, and containers start one after the other.
    let hooking = view.memory.hooking();
    let initialized = init(view, &mut decision);
    if hooking {
        decision.actions.retain(|action| matches!(action, Action::Restart { .. }));
        return decision;
    }
    if !initialized {
        return decision;
    }
    let Some(spec) = &view.pod.spec else { return decision };
    let mut finished = true;
    for container in &spec.containers {
        finished &= !advance(view, container, false, &mut decision);
    }
    if finished {
        decision.actions.push(if running { Action::End } else { Action::StopSandbox });
    }
    // The shim takes one order at a time; the next start is decided when this one is done.
    let mut started = false;
    decision.actions.retain(|action| !matches!(action, Action::Start { .. }) || !std::mem::replace(&mut started, true));
    decision
}

/// Whether a container has ended in such a way that every container of the pod starts afresh.
pub fn starts_afresh(pod: &Pod, state: &PodState) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let init = spec.init_containers.iter().flatten().map(|container| (container, true));
    init.chain(spec.containers.iter().map(|container| (container, false))).any(|(container, is_init)| {
        let outcome = state.current(&container.name).and_then(|run| run.outcome.as_ref());
        outcome.is_some_and(|outcome| verdict(pod, container, is_init, outcome) == Verdict::RestartsAll)
    })
}

/// Whether every container beside the init containers has ended for good.
fn work_is_done(view: &View<'_>) -> bool {
    let containers = view.pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut ended = containers.map(|container| {
        let outcome = view.state.current(&container.name).and_then(|run| run.outcome.as_ref());
        outcome.is_some_and(|outcome| verdict(view.pod, container, false, outcome) == Verdict::Stays)
    });
    ended.all(|ended| ended)
}

/// Brings the init containers on; true when all have done their work.
fn init(view: &View<'_>, decision: &mut Decision) -> bool {
    let Some(spec) = &view.pod.spec else { return false };
    for container in spec.init_containers.iter().flatten() {
        if is_sidecar(container) {
            advance(view, container, true, decision);
            let up = view.state.current(&container.name).is_some_and(Run::running);
            if !up || !view.memory.containers.get(&container.name).is_some_and(|memory| memory.started) {
                return false;
            }
            continue;
        }
        if view.state.current(&container.name).and_then(|run| run.outcome.as_ref()).is_some_and(|o| o.exit_code == 0) {
            continue;
        }
        let pending = advance(view, container, true, decision);
        if !pending {
            let running = view.state.containers.values().flatten().any(Run::running);
            decision.actions.push(if running { Action::End } else { Action::StopSandbox });
        }
        return false;
    }
    true
}

/// Brings one container on; false when it has ended for good.
fn advance(view: &View<'_>, container: &Container, is_init: bool, decision: &mut Decision) -> bool {
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
        } else if (!is_init || is_sidecar(container)) && image_changed(container, run) {
            let reason = "definition changed".to_owned();
            decision.actions.push(Action::Restart { container: name.clone(), reason });
        }
        return true;
    };
    if outcome.removed {
        decision.actions.push(Action::Start { container: name.clone(), attempt: run.attempt + 1 });
        return true;
    }
    if verdict(view.pod, container, is_init, outcome) == Verdict::Stays {
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

/// Whether the pod has been given another image since the container started.
fn image_changed(container: &Container, run: &Run) -> bool {
    !run.image.is_empty() && container.image.as_deref().is_some_and(|image| image != run.image)
}

fn sooner(wake: &mut Option<Timestamp>, at: Timestamp) {
    *wake = Some(wake.map_or(at, |wake| wake.min(at)));
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
