//! A pod's status: a pure function of what its containers do and did.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    ContainerUser, HostIP, LinuxContainerUser, Pod, PodCondition, PodIP, PodStatus, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::decide::{SandboxPhase, deadline, starts_afresh};
use super::memory::Memory;
use super::policy::{Verdict, is_sidecar, verdict};
use super::{quantity, resources, spec};
use crate::shim::proto::{Outcome, PodState, Run};

/// Scheme of container identities.
pub const CONTAINER_SCHEME: &str = "osb://";

/// Most bytes of all termination messages of a pod, as in Kubernetes.
const MAX_MESSAGES: usize = 12 * 1024;
/// The condition that tells that every container of the pod starts afresh.
const RESTARTING: &str = "AllContainersRestarting";

/// What the status is made from.
pub struct View<'a> {
    /// The pod, with its last status.
    pub pod: &'a Pod,
    /// Its containers.
    pub state: &'a PodState,
    /// What is remembered.
    pub memory: &'a Memory,
    /// Its sandbox.
    pub sandbox: SandboxPhase,
    /// The pod's address.
    pub pod_ip: Option<String>,
    /// The node's address.
    pub host_ip: &'a str,
    /// Now.
    pub now: Timestamp,
}

/// Makes the status.
pub fn build(view: &View<'_>) -> PodStatus {
    let old = view.pod.status.clone().unwrap_or_default();
    let Some(spec) = &view.pod.spec else { return old };
    if let Some((reason, message)) = rejection(view.pod) {
        return PodStatus {
            phase: Some("Failed".to_owned()),
            reason: Some(reason),
            message: Some(message),
            start_time: old.start_time.or(Some(Time(view.now))),
            qos_class: Some(qos_class(view.pod).to_owned()),
            observed_generation: view.pod.metadata.generation,
            ..PodStatus::default()
        };
    }
    let init: Vec<&Container> = spec.init_containers.iter().flatten().collect();
    let initialized = init.iter().all(|container| {
        let run = view.state.current(&container.name);
        if is_sidecar(container) {
            run.is_some() && view.memory.containers.get(&container.name).is_some_and(|memory| memory.started)
        } else {
            run.and_then(|run| run.outcome.as_ref()).is_some_and(|outcome| outcome.exit_code == 0)
        }
    });
    let mut init_statuses: Vec<ContainerStatus> =
        init.iter().map(|container| container_status(view, container, true)).collect();
    let sidecars = init.iter().zip(&init_statuses).filter(|(container, _)| is_sidecar(container));
    let unready_sidecars: Vec<String> =
        sidecars.filter(|(_, status)| !status.ready).map(|(container, _)| container.name.clone()).collect();
    let mut statuses: Vec<ContainerStatus> =
        spec.containers.iter().map(|container| container_status(view, container, false)).collect();
    bound_messages(&mut [&mut init_statuses, &mut statuses]);
    let (phase, reason, message) = phase(view, initialized);
    let finished = matches!(phase, "Succeeded" | "Failed");
    let unready: Vec<&str> = unready_sidecars
        .iter()
        .map(String::as_str)
        .chain(statuses.iter().filter(|s| !s.ready).map(|s| s.name.as_str()))
        .collect();
    let conditions = conditions(view, &old, initialized, &init, &unready, finished, phase);
    let resources = resources::of_pod(view.pod);
    let pod_ip = view.pod_ip.clone().or_else(|| if finished { old.pod_ip.clone() } else { None });
    PodStatus {
        phase: Some(phase.to_owned()),
        reason,
        message,
        conditions: Some(conditions),
        host_ip: Some(view.host_ip.to_owned()),
        host_ips: Some(vec![HostIP { ip: view.host_ip.to_owned() }]),
        pod_ips: pod_ip.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip,
        start_time: old.start_time.clone().or(Some(Time(view.now))),
        init_container_statuses: (!init_statuses.is_empty()).then_some(init_statuses),
        container_statuses: Some(statuses),
        qos_class: Some(qos_class(view.pod).to_owned()),
        observed_generation: view.pod.metadata.generation,
        allocated_resources: resources.requests.clone(),
        resources: Some(resources),
        ..old
    }
}

/// Why the pod is not let in at all: a reason and a message.
pub fn rejection(pod: &Pod) -> Option<(String, String)> {
    let sysctl = spec::unsafe_sysctl(pod)?;
    let message = format!("Pod was rejected: forbidden sysctl: {sysctl:?} not allowlisted");
    Some(("SysctlForbidden".to_owned(), message))
}

fn phase(view: &View<'_>, initialized: bool) -> (&'static str, Option<String>, Option<String>) {
    let spec = view.pod.spec.clone().unwrap_or_default();
    let terminal = view.pod.status.as_ref().and_then(|status| status.phase.clone());
    let before = |phase: &'static str| {
        let old = view.pod.status.clone().unwrap_or_default();
        (phase, old.reason, old.message)
    };
    // A finished pod stays what it is.
    match terminal.as_deref() {
        Some("Failed") => return before("Failed"),
        Some("Succeeded") => return before("Succeeded"),
        _ => {}
    }
    if view.sandbox == SandboxPhase::Lost {
        let message = "the pod's sandbox process was killed, and its containers with it";
        return ("Failed", Some("SandboxLost".to_owned()), Some(message.to_owned()));
    }
    let running = |name: &str| view.state.current(name).is_some_and(Run::running);
    let any_running = spec.containers.iter().any(|container| running(&container.name));
    if !any_running && deadline(view.pod).is_some_and(|deadline| view.now >= deadline) {
        let message = "Pod was active on the node longer than the specified deadline";
        return ("Failed", Some("DeadlineExceeded".to_owned()), Some(message.to_owned()));
    }
    // A deleted pod is over once nothing of it is left, whatever its policy.
    if view.pod.metadata.deletion_timestamp.is_some() && view.sandbox == SandboxPhase::Stopped {
        let zero = |container: &Container| outcome(view.state, &container.name).is_some_and(|o| o.exit_code == 0);
        return (if spec.containers.iter().all(zero) { "Succeeded" } else { "Failed" }, None, None);
    }
    let stays = |container: &Container, is_init: bool| {
        outcome(view.state, &container.name)
            .is_some_and(|outcome| verdict(view.pod, container, is_init, outcome) == Verdict::Stays)
    };
    if !initialized {
        let failed = spec.init_containers.iter().flatten().any(|container| {
            !is_sidecar(container)
                && stays(container, true)
                && outcome(view.state, &container.name).is_some_and(|outcome| outcome.exit_code != 0)
        });
        return if failed { ("Failed", None, None) } else { ("Pending", None, None) };
    }
    if spec.containers.iter().any(|container| view.state.current(&container.name).is_none()) {
        return ("Pending", None, None);
    }
    let outcomes: Vec<&Outcome> =
        spec.containers.iter().filter_map(|container| outcome(view.state, &container.name)).collect();
    if any_running || spec.containers.iter().any(|container| !stays(container, false)) {
        ("Running", None, None)
    } else if outcomes.iter().all(|outcome| outcome.exit_code == 0) {
        ("Succeeded", None, None)
    } else {
        ("Failed", None, None)
    }
}

fn outcome<'a>(state: &'a PodState, container: &str) -> Option<&'a Outcome> {
    state.current(container).and_then(|run| run.outcome.as_ref())
}

fn conditions(
    view: &View<'_>,
    old: &PodStatus,
    initialized: bool,
    init: &[&Container],
    unready: &[&str],
    finished: bool,
    phase: &str,
) -> Vec<PodCondition> {
    let known = old.conditions.clone().unwrap_or_default();
    let mut conditions: Vec<PodCondition> = Vec::new();
    let mut set = |kind: &str, holds: bool, reason: Option<&str>, message: Option<String>| {
        let status = if holds { "True" } else { "False" };
        let before = known.iter().find(|condition| condition.type_ == kind);
        let since = match before {
            Some(condition) if condition.status == status => condition.last_transition_time.clone(),
            _ => None,
        };
        conditions.push(PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.map(str::to_owned),
            message,
            last_transition_time: since.or(Some(Time(view.now))),
            observed_generation: view.pod.metadata.generation,
            ..PodCondition::default()
        });
    };
    set("PodReadyToStartContainers", view.sandbox == SandboxPhase::Ready, None, None);
    let completed = phase == "Succeeded";
    let waiting_init: Vec<&str> = init
        .iter()
        .filter(|container| {
            if is_sidecar(container) {
                return !view.memory.containers.get(&container.name).is_some_and(|memory| memory.started);
            }
            outcome(view.state, &container.name).is_none_or(|outcome| outcome.exit_code != 0)
        })
        .map(|container| container.name.as_str())
        .collect();
    if initialized {
        set("Initialized", true, completed.then_some("PodCompleted"), None);
    } else {
        let message = format!("containers with incomplete status: [{}]", waiting_init.join(" "));
        set("Initialized", false, Some("ContainersNotInitialized"), Some(message));
    }
    let gates: Vec<String> = view
        .pod
        .spec
        .iter()
        .flat_map(|spec| spec.readiness_gates.iter().flatten())
        .map(|gate| gate.condition_type.as_str())
        .filter_map(|gate| match known.iter().find(|condition| condition.type_ == gate) {
            None => Some(format!("corresponding condition of pod readiness gate {gate:?} does not exist.")),
            Some(condition) if condition.status != "True" => {
                Some(format!("the status of pod readiness gate {gate:?} is not \"True\", but {}", condition.status))
            }
            Some(_) => None,
        })
        .collect();
    let ready = unready.is_empty() && initialized && !finished;
    let (reason, message) = if finished {
        (if completed { Some("PodCompleted") } else { Some("PodFailed") }, None)
    } else if ready {
        (None, None)
    } else {
        (Some("ContainersNotReady"), Some(format!("containers with unready status: [{}]", unready.join(" "))))
    };
    if ready && !gates.is_empty() {
        set("Ready", false, Some("ReadinessGatesNotReady"), Some(gates.join(", ")));
    } else {
        set("Ready", ready, reason, message.clone());
    }
    set("ContainersReady", ready, reason, message);
    // The scheduler's, and those of others, stay.
    let ours: Vec<String> = conditions.iter().map(|condition| condition.type_.clone()).collect();
    conditions.extend(known.into_iter().filter(|condition| !ours.contains(&condition.type_)));
    let restarting = restarting(view);
    if !conditions.iter().any(|condition| condition.type_ == "PodScheduled") {
        conditions.push(PodCondition {
            type_: "PodScheduled".to_owned(),
            status: "True".to_owned(),
            last_transition_time: Some(Time(view.now)),
            ..PodCondition::default()
        });
    }
    for condition in &mut conditions {
        match condition.type_.as_str() {
            "PodScheduled" => condition.observed_generation = view.pod.metadata.generation,
            RESTARTING if !restarting && condition.status == "True" => {
                condition.status = "False".to_owned();
                condition.last_transition_time = Some(Time(view.now));
            }
            _ => {}
        }
    }
    if restarting && !conditions.iter().any(|condition| condition.type_ == RESTARTING && condition.status == "True") {
        conditions.retain(|condition| condition.type_ != RESTARTING);
        conditions.push(PodCondition {
            type_: RESTARTING.to_owned(),
            status: "True".to_owned(),
            last_transition_time: Some(Time(view.now)),
            ..PodCondition::default()
        });
    }
    conditions
}

/// Whether every container of the pod is being started afresh.
fn restarting(view: &View<'_>) -> bool {
    let removed = |runs: &Vec<Run>| runs.last().and_then(|run| run.outcome.as_ref()).is_some_and(|o| o.removed);
    starts_afresh(view.pod, view.state) || view.state.containers.values().any(removed)
}

fn container_status(view: &View<'_>, container: &Container, is_init: bool) -> ContainerStatus {
    let has_init =
        view.pod.spec.as_ref().is_some_and(|spec| spec.init_containers.as_ref().is_some_and(|i| !i.is_empty()));
    let not_yet = if has_init { "PodInitializing" } else { "ContainerCreating" };
    let name = &container.name;
    let memory = view.memory.containers.get(name);
    let runs = view.state.containers.get(name).map(Vec::as_slice).unwrap_or_default();
    let lost = view.sandbox == SandboxPhase::Lost;
    let state_of = |run: &Run| match &run.outcome {
        Some(outcome) => terminated(run, outcome),
        None if lost => unknown(run, view.now),
        None => ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(Time(run.started_at)) }),
            ..ContainerState::default()
        },
    };
    let current = runs.last();
    let over = matches!(view.sandbox, SandboxPhase::Stopping | SandboxPhase::Stopped)
        || lost
        || view.pod.metadata.deletion_timestamp.is_some()
        || matches!(view.pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Failed" | "Succeeded"));
    let waits = memory.and_then(|memory| memory.waiting.as_ref());
    let (state, last) = match current {
        Some(run) if run.running() => (state_of(run), runs.iter().rev().nth(1).map(state_of)),
        Some(run) => {
            let ended = state_of(run);
            let outcome = run.outcome.as_ref();
            let removed = outcome.is_some_and(|outcome| outcome.removed);
            let again = !over
                && outcome.is_some_and(|outcome| verdict(view.pod, container, is_init, outcome) != Verdict::Stays);
            if removed && !over {
                (waiting_state(not_yet, ""), Some(ended))
            } else if let (Some(waiting), true) = (waits, again) {
                (waiting_state(&waiting.reason, &waiting.message), Some(ended))
            } else if again && memory.is_some_and(|memory| memory.backoff.pause().is_some()) {
                let pause = memory.and_then(|memory| memory.backoff.pause()).unwrap_or_default();
                let message = format!(
                    "back-off {}s restarting failed container={name} pod={}_{}({})",
                    pause.as_secs(),
                    view.pod.metadata.name.as_deref().unwrap_or_default(),
                    view.pod.metadata.namespace.as_deref().unwrap_or_default(),
                    view.pod.metadata.uid.as_deref().unwrap_or_default(),
                );
                (waiting_state("CrashLoopBackOff", &message), Some(ended))
            } else {
                (ended, runs.iter().rev().nth(1).map(state_of))
            }
        }
        None => {
            let state = match (waits, &view.memory.sandbox) {
                (Some(waiting), _) => waiting_state(&waiting.reason, &waiting.message),
                (None, Some(waiting)) => waiting_state(&waiting.reason, &waiting.message),
                (None, None) if lost => waiting_state("ContainerStatusUnknown", "the container was never started"),
                (None, None) => waiting_state(not_yet, ""),
            };
            (state, None)
        }
    };
    let running = state.running.is_some();
    let probed = memory.filter(|memory| current.is_some_and(|run| run.id == memory.probed));
    let started = running && probed.is_some_and(|memory| memory.started);
    let done = current.and_then(|run| run.outcome.as_ref()).is_some_and(|outcome| outcome.exit_code == 0);
    let ready =
        if is_init && !is_sidecar(container) { done } else { started && probed.is_some_and(|memory| memory.ready) };
    let image = match memory {
        Some(memory) if current.is_some() && !memory.image.is_empty() => memory.image.clone(),
        _ => container.image.clone().unwrap_or_default(),
    };
    let given = resources::of_container(container);
    let user = current.and_then(|run| run.user.as_ref()).map(|user| ContainerUser {
        linux: Some(LinuxContainerUser {
            uid: i64::from(user.uid),
            gid: i64::from(user.gid),
            supplemental_groups: Some(user.groups.iter().copied().map(i64::from).collect()),
        }),
    });
    ContainerStatus {
        name: name.clone(),
        ready,
        started: Some(started),
        restart_count: current.map_or(0, |run| run.attempt as i32),
        image_id: memory.filter(|_| current.is_some()).map(|memory| memory.image_id.clone()).unwrap_or_default(),
        image,
        allocated_resources: given.requests.clone().filter(|_| current.is_some()),
        resources: current.map(|_| given),
        user,
        volume_mounts: mounts(container),
        container_id: current.map(|run| format!("{CONTAINER_SCHEME}{}", run.id)),
        state: Some(state),
        last_state: Some(last.unwrap_or_default()),
        ..ContainerStatus::default()
    }
}

fn mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts: Vec<VolumeMountStatus> = container
        .volume_mounts
        .iter()
        .flatten()
        .map(|mount| VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: mount.read_only.filter(|read_only| *read_only),
            // What is mounted below a read-only volume is left out, so there is nothing to be recursive about.
            recursive_read_only: (mount.read_only == Some(true)).then(|| "Disabled".to_owned()),
            ..VolumeMountStatus::default()
        })
        .collect();
    (!mounts.is_empty()).then_some(mounts)
}

/// Bounds the messages of all containers, each to its part.
fn bound_messages(statuses: &mut [&mut Vec<ContainerStatus>]) {
    let count: usize = statuses.iter().map(|list| list.len()).sum();
    let most = MAX_MESSAGES / count.max(1);
    for status in statuses.iter_mut().flat_map(|list| list.iter_mut()) {
        for state in [&mut status.state, &mut status.last_state].into_iter().flatten() {
            if let Some(message) = state.terminated.as_mut().and_then(|terminated| terminated.message.as_mut()) {
                message.truncate(message.floor_char_boundary(most));
            }
        }
    }
}

fn waiting_state(reason: &str, message: &str) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: (!message.is_empty()).then(|| message.to_owned()),
        }),
        ..ContainerState::default()
    }
}

fn terminated(run: &Run, outcome: &Outcome) -> ContainerState {
    if outcome.removed {
        return ContainerState {
            terminated: Some(ContainerStateTerminated {
                exit_code: outcome.exit_code,
                reason: Some("RestartingAllContainers".to_owned()),
                message: Some("The container is removed because RestartAllContainers in place".to_owned()),
                ..ContainerStateTerminated::default()
            }),
            ..ContainerState::default()
        };
    }
    let reason = if outcome.start_failed {
        "StartError"
    } else if outcome.oom_killed {
        "OOMKilled"
    } else if outcome.exit_code == 0 {
        "Completed"
    } else {
        "Error"
    };
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: outcome.exit_code,
            // The interface between a kubelet and its runtime has no signal: readers know it by 128 and the signal.
            signal: None,
            reason: Some(reason.to_owned()),
            message: (!outcome.message.is_empty()).then(|| outcome.message.clone()),
            // What never ran has never started.
            started_at: Some(Time(if outcome.start_failed { Timestamp::UNIX_EPOCH } else { run.started_at })),
            finished_at: Some(Time(outcome.finished_at)),
            container_id: Some(format!("{CONTAINER_SCHEME}{}", run.id)),
        }),
        ..ContainerState::default()
    }
}

fn unknown(run: &Run, now: Timestamp) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some("the container ended with its pod's sandbox process; how is not known".to_owned()),
            started_at: Some(Time(run.started_at)),
            finished_at: Some(Time(now)),
            container_id: Some(format!("{CONTAINER_SCHEME}{}", run.id)),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}

/// The pod's quality of service class.
pub fn qos_class(pod: &Pod) -> &'static str {
    let Some(spec) = &pod.spec else { return "BestEffort" };
    let mut any = false;
    let mut guaranteed = true;
    // The pod's own limits are the only ones that count where there are any.
    let own = spec.resources.iter().filter(|own| own.limits.is_some() || own.requests.is_some());
    let of_pod: Vec<_> = own.cloned().collect();
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let asked = if of_pod.is_empty() {
        containers.map(|container| container.resources.clone().unwrap_or_default()).collect()
    } else {
        of_pod
    };
    for resources in asked {
        let (limits, requests) = (resources.limits.unwrap_or_default(), resources.requests.unwrap_or_default());
        for name in ["cpu", "memory"] {
            let limit = limits.get(name).and_then(quantity::milli);
            let request = requests.get(name).and_then(quantity::milli);
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Whether two statuses say the same.
pub fn same(old: Option<&PodStatus>, new: &PodStatus) -> bool {
    // Compared as they go over the wire, where empty and absent are one.
    match (old.map(serde_json::to_value), serde_json::to_value(new)) {
        (Some(Ok(old)), Ok(new)) => old == new,
        _ => false,
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
