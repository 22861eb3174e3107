//! What the controller keeps of a pod: the few facts that decide anything, not the object.

use std::sync::Arc;

use api_types::crd::Daemons;
use api_types::names::{GROUP, annotations, env, labels};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};

use super::{Uid, version_of};

/// Reasons for which a container waits that do not pass by themselves soon.
const FAILING: [&str; 8] = [
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "ErrImagePull",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
    "StartError",
];

/// Which kind of object made a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// A Pool, by UID.
    Pool(Uid),
    /// A BatchSandbox, by UID.
    Batch(Uid),
}

impl Owner {
    /// The owner's UID.
    pub fn uid(&self) -> &Uid {
        match self {
            Self::Pool(uid) | Self::Batch(uid) => uid,
        }
    }
}

/// One word for programs and one sentence for people about what went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// One word.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// How a container ended, where that is the trouble.
    pub exit: Option<Exit>,
}

/// How a container, or an entrypoint, ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// The container, where it was one.
    pub container: Option<String>,
    /// Exit code.
    pub code: i32,
    /// Signal, where Kubernetes names it.
    pub signal: Option<i32>,
    /// When.
    pub at: Option<Timestamp>,
}

impl Trouble {
    /// Both parts.
    pub fn new(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into(), exit: None }
    }

    /// The same with how something ended.
    #[must_use]
    pub fn with_exit(mut self, exit: Option<Exit>) -> Self {
        self.exit = exit.or(self.exit);
        self
    }
}

/// The daemon that takes the claim of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimant {
    /// execd.
    Execd,
    /// task-executor, in pods without execd.
    TaskExecutor,
    /// Nobody: the pod itself is marked.
    Label,
}

/// Phase of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not all containers have started.
    Pending,
    /// Running.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
    /// The node does not answer.
    Unknown,
}

/// The facts about a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct PodView {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// UID.
    pub uid: Uid,
    /// resourceVersion as a number; 0 where it is none.
    pub version: u64,
    /// Who made it.
    pub owner: Option<Owner>,
    /// Revision of the pool's template.
    pub revision: Option<String>,
    /// Whom its label names as the holder.
    pub claimed_by: Option<String>,
    /// Whether somebody asked for it to be replaced.
    pub evict: bool,
    /// Index in its BatchSandbox.
    pub index: Option<i32>,
    /// Address.
    pub ip: Option<String>,
    /// Whether it has a node.
    pub scheduled: bool,
    /// Phase.
    pub phase: Phase,
    /// Since when it is ready, if it is.
    pub ready_since: Option<Timestamp>,
    /// When it was made.
    pub created: Timestamp,
    /// Whether its deletion was accepted.
    pub deleting: bool,
    /// Restarts of all containers, init containers apart.
    pub restarts: i32,
    /// Why it does not start, where it says so.
    pub failing: Option<Trouble>,
    /// Why no node takes it, where the scheduler says so; another node may come.
    pub unplaced: Option<Trouble>,
    /// Why it, or a container of it, ended last.
    pub ended: Option<Trouble>,
    /// Who takes its claim.
    pub claimant: Claimant,
    /// Whether a task-executor runs in it.
    pub task_executor: bool,
    /// Whether its daemons know the platform's key.
    pub keyed: bool,
    /// Whether its containers run as far as anybody knows, and its node does not answer.
    pub node_lost: bool,
    /// Whether an older controller began to make it fit for another owner.
    pub recycled: bool,
    /// How long each part of its start took, once it is ready.
    pub start: Option<Start>,
}

/// How long the parts of a pod's start took, in whole seconds, which is what Kubernetes records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// From its creation until it had a node.
    pub schedule: u64,
    /// Until its sandbox and network stood.
    pub sandbox: u64,
    /// Until its init containers had ended, their images included.
    pub init: u64,
    /// Until its containers were ready, their images included.
    pub containers: u64,
}

impl PodView {
    /// Reads a pod; `None` when it has no UID, which an API server never sends.
    pub fn of(pod: &Pod) -> Option<Self> {
        let meta = &pod.metadata;
        let label = |key: &str| meta.labels.as_ref().and_then(|l| l.get(key));
        let daemons = pod.spec.as_ref().map(Daemons::of).unwrap_or_default();
        let status = pod.status.clone().unwrap_or_default();
        let phase = match status.phase.as_deref() {
            Some("Running") => Phase::Running,
            Some("Succeeded") => Phase::Succeeded,
            Some("Failed") => Phase::Failed,
            Some("Unknown") => Phase::Unknown,
            _ => Phase::Pending,
        };
        let ready = status.conditions.iter().flatten().find(|c| c.type_ == "Ready" && c.status == "True");
        let created = meta.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0);
        let ready_since =
            ready.filter(|_| phase == Phase::Running).map(|c| c.last_transition_time.as_ref().map_or(created, |t| t.0));
        let start = ready_since.and_then(|_| start(created, status.conditions.as_deref().unwrap_or_default()));
        let node_lost = phase == Phase::Running && is_node_lost(pod);
        let disruption =
            status.conditions.iter().flatten().find(|c| c.type_ == "DisruptionTarget" && c.status == "True");
        let disruption = disruption.map(|c| {
            let reason = c.reason.clone().unwrap_or_else(|| "Disrupted".to_owned());
            Trouble::new(reason, c.message.clone().unwrap_or_default())
        });
        let containers = status.container_statuses.as_deref().unwrap_or_default();
        let init = status.init_container_statuses.as_deref().unwrap_or_default();
        let pod_trouble =
            status.reason.clone().map(|reason| Trouble::new(reason, status.message.clone().unwrap_or_default()));
        let container = containers.iter().chain(init).find_map(ended);
        let exit = container.as_ref().and_then(|trouble| trouble.exit.clone());
        let ended = pod_trouble.or(disruption).map(|trouble| trouble.with_exit(exit)).or(container);
        Some(Self {
            namespace: meta.namespace.as_deref().unwrap_or_default().into(),
            name: meta.name.as_deref().unwrap_or_default().into(),
            uid: meta.uid.as_deref()?.into(),
            version: version_of(meta.resource_version.as_deref()),
            owner: owner_of(pod),
            revision: label(labels::POOL_REVISION).cloned(),
            claimed_by: label(labels::CLAIMED_BY).cloned(),
            evict: label(labels::EVICT).is_some(),
            index: label(labels::POD_INDEX).and_then(|i| i.parse().ok()),
            ip: status.pod_ip.filter(|ip| !ip.is_empty()),
            scheduled: pod.spec.as_ref().is_some_and(|s| s.node_name.as_ref().is_some_and(|n| !n.is_empty())),
            phase,
            ready_since,
            created,
            deleting: meta.deletion_timestamp.is_some(),
            restarts: containers.iter().map(|c| c.restart_count).sum(),
            failing: init.iter().chain(containers).find_map(failing),
            unplaced: status.conditions.iter().flatten().find_map(unplaced),
            ended,
            claimant: match (&daemons.execd, &daemons.task_executor) {
                (Some(_), _) => Claimant::Execd,
                (None, Some(_)) => Claimant::TaskExecutor,
                (None, None) => Claimant::Label,
            },
            task_executor: daemons.task_executor.is_some(),
            keyed: pod
                .spec
                .iter()
                .flat_map(|s| &s.containers)
                .flat_map(|c| c.env.iter().flatten())
                .any(|e| e.name == env::DAEMON_KEY),
            node_lost,
            recycled: meta.annotations.as_ref().is_some_and(|a| a.contains_key(annotations::RESTART_RECORD)),
            start,
        })
    }

    /// Running, ready, with an address, and not on its way out.
    pub fn is_ready(&self) -> bool {
        !self.deleting && self.ready_since.is_some() && self.ip.is_some()
    }

    /// Why it does not get ready, where anybody says so.
    pub fn held_up(&self) -> Option<&Trouble> {
        self.failing.as_ref().or(self.unplaced.as_ref())
    }

    /// Over: no container of it will run again.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }

    /// What to say when the pod was lost: its own words where it has any.
    pub fn epitaph(&self, fallback: &str, message: &str) -> Trouble {
        self.ended.clone().unwrap_or_else(|| Trouble::new(fallback, message))
    }
}

/// Kubernetes: when a node is silent its pods lose the condition Ready, and only the kubelet, which is gone, would take
/// ContainersReady away. Readiness gates can do the same to a healthy pod.
fn is_node_lost(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|s| &s.conditions).flatten();
    let says = |kind: &str, status: &str| conditions.clone().any(|c| c.type_ == kind && c.status == status);
    let gates = pod.spec.as_ref().and_then(|s| s.readiness_gates.as_ref()).is_some_and(|g| !g.is_empty());
    !gates && says("Ready", "False") && says("ContainersReady", "True")
}

/// Reads the times of a start; `None` when a condition of it is missing.
fn start(created: Timestamp, conditions: &[PodCondition]) -> Option<Start> {
    let at = |kind: &str| {
        let condition = conditions.iter().find(|c| c.type_ == kind && c.status == "True")?;
        condition.last_transition_time.as_ref().map(|t| t.0)
    };
    let seconds = |from: Timestamp, to: Timestamp| u64::try_from(to.duration_since(from).as_secs()).unwrap_or(0);
    let (scheduled, initialized, ready) = (at("PodScheduled")?, at("Initialized")?, at("ContainersReady")?);
    // Kubernetes before 1.29 does not tell this one apart.
    let network = at("PodReadyToStartContainers").unwrap_or(scheduled).min(initialized);
    Some(Start {
        schedule: seconds(created, scheduled),
        sandbox: seconds(scheduled, network),
        init: seconds(network, initialized),
        containers: seconds(initialized, ready),
    })
}

fn owner_of(pod: &Pod) -> Option<Owner> {
    let owner = pod.metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true))?;
    if owner.api_version.split('/').next() != Some(GROUP) {
        return None;
    }
    match owner.kind.as_str() {
        "Pool" => Some(Owner::Pool(owner.uid.as_str().into())),
        "BatchSandbox" => Some(Owner::Batch(owner.uid.as_str().into())),
        _ => None,
    }
}

fn failing(container: &ContainerStatus) -> Option<Trouble> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    FAILING.contains(&reason).then(|| {
        let detail = waiting.message.clone().unwrap_or_default();
        Trouble::new(reason, format!("container {}: {reason}: {detail}", container.name))
    })
}

fn unplaced(condition: &PodCondition) -> Option<Trouble> {
    let unschedulable = condition.type_ == "PodScheduled" && condition.reason.as_deref() == Some("Unschedulable");
    (unschedulable && condition.status != "True").then(|| {
        let detail = condition.message.as_deref().unwrap_or("the scheduler finds no node");
        Trouble::new("Unschedulable", format!("no node takes it: {detail}"))
    })
}

/// Why a container ended, now or the last time; one that ended well and was not restarted is no trouble.
fn ended(container: &ContainerStatus) -> Option<Trouble> {
    let current = container.state.as_ref().and_then(|s| s.terminated.as_ref());
    let last =
        container.last_state.as_ref().and_then(|s| s.terminated.as_ref()).filter(|_| container.restart_count > 0);
    let end = current.filter(|t| t.exit_code != 0).or(last)?;
    let reason = match end.reason.as_deref() {
        Some("OOMKilled") => "OOMKilled",
        _ if container.restart_count > 0 => "ContainerRestarted",
        _ => "ContainerEnded",
    };
    let mut message = format!("container {} ended with exit code {}", container.name, end.exit_code);
    if let Some(signal) = end.signal {
        message.push_str(&format!(", signal {signal}"));
    }
    if let Some(word) = end.reason.as_deref() {
        message.push_str(&format!(" ({word})"));
    }
    if let Some(text) = end.message.as_deref().filter(|t| !t.is_empty()) {
        message.push_str(&format!(": {text}"));
    }
    let exit = Exit {
        container: Some(container.name.clone()),
        code: end.exit_code,
        signal: end.signal,
        at: end.finished_at.as_ref().map(|t| t.0),
    };
    Some(Trouble::new(reason, message).with_exit(Some(exit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(status: serde_json::Value) -> PodView {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "d", "uid": "u1", "resourceVersion": "7"},
            "spec": {"containers": []}, "status": status,
        }))
        .unwrap();
        PodView::of(&pod).unwrap()
    }

    #[test]
    fn a_memory_kill_is_told_as_such() {
        let killed = serde_json::json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
        let seen = pod(serde_json::json!({"phase": "Running", "containerStatuses": [
            {"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 1, "lastState": killed}]}));
        assert_eq!(seen.restarts, 1);
        let ended = seen.ended.unwrap();
        assert_eq!((ended.reason.as_str(), ended.exit.unwrap().code), ("OOMKilled", 137));
    }

    #[test]
    fn a_pod_that_no_node_takes_is_held_up_and_has_not_failed() {
        let unschedulable = serde_json::json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/5 nodes are available: pod has unbound immediate PersistentVolumeClaims."});
        let seen = pod(serde_json::json!({"phase": "Pending", "conditions": [unschedulable]}));
        assert_eq!(seen.failing, None);
        assert!(seen.held_up().unwrap().message.contains("PersistentVolumeClaims"));
        let placed = serde_json::json!({"type": "PodScheduled", "status": "True"});
        assert_eq!(pod(serde_json::json!({"phase": "Pending", "conditions": [placed]})).held_up(), None);
    }

    #[test]
    fn an_init_container_without_image_is_a_failing_pod() {
        let waiting = serde_json::json!({"waiting": {"reason": "ErrImagePull", "message": "no such image"}});
        let seen = pod(serde_json::json!({"phase": "Pending", "initContainerStatuses": [
            {"name": "init", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": waiting}]}));
        let trouble = seen.failing.unwrap();
        assert_eq!(trouble.reason, "ErrImagePull");
        assert!(trouble.message.contains("no such image"));
    }

    #[test]
    fn a_silent_node_is_told_from_a_failing_probe() {
        let conditions = |containers: &str| serde_json::json!([{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": containers}]);
        let of = |c| pod(serde_json::json!({"phase": "Running", "podIP": "10.0.0.1", "conditions": c}));
        assert!(of(conditions("True")).node_lost);
        assert!(!of(conditions("False")).node_lost);
    }

    #[test]
    fn a_start_is_split_by_its_conditions() {
        let at = |kind: &str, second: u32| serde_json::json!({"type": kind, "status": "True", "lastTransitionTime": format!("2026-01-01T00:00:{second:02}Z")});
        let object: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "d", "uid": "u1", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": []}, "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [
                at("PodScheduled", 1), at("PodReadyToStartContainers", 3), at("Initialized", 6), at("ContainersReady", 10), at("Ready", 10)]}}))
        .unwrap();
        let start = PodView::of(&object).unwrap().start;
        assert_eq!(start, Some(Start { schedule: 1, sandbox: 2, init: 3, containers: 4 }));
    }

    #[test]
    fn a_pod_without_address_is_not_ready() {
        let conditions =
            serde_json::json!([{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        assert!(!pod(serde_json::json!({"phase": "Running", "conditions": conditions})).is_ready());
        assert!(pod(serde_json::json!({"phase": "Running", "podIP": "10.0.0.1", "conditions": conditions})).is_ready());
    }
}
