//! BatchSandbox: so many sandboxes, taken from a pool or made from a template.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, Raw};
use crate::tasks::ProcessTask;

fn one() -> i32 {
    1
}

fn retain() -> String {
    "Retain".to_owned()
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// What is wanted of a BatchSandbox.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "sandbox.opensandbox.io",
    version = "v1alpha1",
    kind = "BatchSandbox",
    plural = "batchsandboxes",
    singular = "batchsandbox",
    shortname = "bsbx",
    namespaced,
    status = "BatchSandboxStatus",
    derive = "PartialEq",
    doc = "So many sandboxes, taken from a pool or made from a template.",
    printcolumn = r#"{"name":"DESIRED","type":"integer","description":"Wanted number of pods.","jsonPath":".spec.replicas"}"#,
    printcolumn = r#"{"name":"TOTAL","type":"integer","description":"Pods found.","jsonPath":".status.replicas"}"#,
    printcolumn = r#"{"name":"ALLOCATED","type":"integer","description":"Pods with a node or an address.","jsonPath":".status.allocated"}"#,
    printcolumn = r#"{"name":"Ready","type":"integer","description":"Ready pods.","jsonPath":".status.ready"}"#,
    printcolumn = r#"{"name":"TASK_RUNNING","type":"integer","priority":1,"description":"Running tasks.","jsonPath":".status.taskRunning"}"#,
    printcolumn = r#"{"name":"TASK_SUCCEED","type":"integer","priority":1,"description":"Tasks that succeeded.","jsonPath":".status.taskSucceed"}"#,
    printcolumn = r#"{"name":"TASK_FAILED","type":"integer","priority":1,"description":"Tasks that failed.","jsonPath":".status.taskFailed"}"#,
    printcolumn = r#"{"name":"TASK_UNKNOWN","type":"integer","priority":1,"description":"Tasks nothing is known of.","jsonPath":".status.taskUnknown"}"#,
    printcolumn = r#"{"name":"EXPIRE","type":"string","description":"When it ends by itself.","jsonPath":".spec.expireTime"}"#,
    printcolumn = r#"{"name":"AGE","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct BatchSandboxSpec {
    /// Wanted number of pods.
    #[serde(default = "one")]
    #[schemars(range(min = 0))]
    pub replicas: i32,
    /// Pool of the same namespace to take them from; `*` lets the controller choose; empty makes them from `template`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_ref: Option<String>,
    /// Pod template when there is no pool; what to match when the controller chooses one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Raw>,
    /// Strategic merge patches: the i-th is applied to the pod of index i.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard_patches: Option<Vec<Raw>>,
    /// When it is deleted by the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire_time: Option<Time>,
    /// Task to run in every pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_template: Option<Raw>,
    /// Strategic merge patches: the i-th is applied to `taskTemplate` for task i.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard_task_patches: Option<Vec<Raw>>,
    /// `Retain` or `Release`: what becomes of a pod when its task has ended.
    #[serde(default = "retain")]
    pub task_resource_policy_when_completed: String,
    /// `true` pauses, `false` resumes, absent wants neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<bool>,
    /// Ours: what every granted pod is told when it is claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<ClaimSpec>,
}

/// What a pod is told when it is claimed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimSpec {
    /// Environment of every later command and of the entrypoint.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Program and arguments to start in the sandbox container, as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
}

/// `spec.taskTemplate`, read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskTemplate {
    /// The task.
    #[serde(default)]
    pub spec: TaskSpec,
}

/// `spec.taskTemplate.spec`, read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskSpec {
    /// The process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessTask>,
    /// Seconds after which it is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i64>,
}

/// What is known of a BatchSandbox.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BatchSandboxStatus {
    /// Generation of the spec this status is about.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub observed_generation: i64,
    /// Pods found.
    pub replicas: i32,
    /// Pods with a node or an address.
    #[serde(default)]
    pub allocated: i32,
    /// Pods that run, are ready and, with a pool, are claimed.
    #[serde(default)]
    pub ready: i32,
    /// Running tasks.
    #[serde(default)]
    pub task_running: i32,
    /// Tasks that ended with 0.
    #[serde(default)]
    pub task_succeed: i32,
    /// Tasks that ended otherwise.
    #[serde(default)]
    pub task_failed: i32,
    /// Tasks that have no pod yet, or have not started.
    #[serde(default)]
    pub task_pending: i32,
    /// Tasks nothing is known of.
    #[serde(default)]
    pub task_unknown: i32,
    /// Where it is in its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<BatchPhase>,
    /// Generation whose pause or resume was accepted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pause_observed_generation: i64,
    /// Observations, keyed by type: `Ready`, `Progressing`, `Paused`, `PodFailed`, `PauseFailed`,
    /// `ResumeFailed`, and ours `PoolAllocationPending`, `InvalidSpec`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Ours: who has which pod. This list, and not the annotations, is the truth.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<Grant>,
    /// Ours: when the controller saw this object first; `metadata.creationTimestamp` has whole seconds only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_at: Option<MicroTime>,
    /// Ours: why it failed, as far as anybody saw; absent while it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub termination: Option<Termination>,
}

/// How a sandbox, or the pod of one, ended. The same stands, as JSON, in annotation
/// `sandbox.opensandbox.io/termination` of the last Event about a sandbox that is gone, whose `action` is `Terminated`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Termination {
    /// One word: `OOMKilled`, `ContainerRestarted`, `PodDeleted`, `Evicted`, `TASK_FAILED` and so on; of a sandbox that
    /// did not fail `Deleted` or `Expired`.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// Container that ended, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Its exit code, or that of the entrypoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Signal that ended it, where Kubernetes names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// When it ended, or was seen to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
}

/// Where a BatchSandbox is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BatchPhase {
    /// No pod is ready.
    Pending,
    /// A pod is ready.
    Succeed,
    /// Being paused.
    Pausing,
    /// Paused.
    Paused,
    /// Being resumed.
    Resuming,
    /// Failed; the conditions say why.
    Failed,
}

/// One pod given to a BatchSandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// Which of the replicas it is, from 0. A replacement has the index of what it replaces.
    pub index: i32,
    /// Name of the pod.
    pub pod: String,
    /// UID of the pod: a namesake is never meant.
    #[serde(rename = "podUID")]
    pub pod_uid: String,
    /// Address of the pod when it was granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(rename = "podIP")]
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// Grows with every grant this BatchSandbox makes.
    pub epoch: i64,
    /// How far it is.
    pub state: GrantState,
    /// Why the pod was lost or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When the controller saw the pod ready first. Before `status.observedAt`: it was warm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_ready_at: Option<MicroTime>,
    /// When the grant was decided; the write that made it durable followed at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted_at: Option<MicroTime>,
    /// When the pod accepted its owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_at: Option<MicroTime>,
    /// When the sandbox was declared ready: with the last claim of its batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<MicroTime>,
    /// What the grant had to wait for, absent when nothing: a reason of condition `PoolAllocationPending`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited_for: Option<String>,
}

/// How far a grant is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GrantState {
    /// Durable, and not yet known to the pod.
    #[default]
    Granted,
    /// The pod knows its owner, and answered.
    Claimed,
    /// To be given back: the pod is being recycled.
    Releasing,
    /// Given back; the pod is gone or was reset.
    Released,
    /// The pod went by itself, or refused.
    Lost,
}

impl GrantState {
    /// Whether the BatchSandbox holds the pod.
    pub const fn holds(self) -> bool {
        matches!(self, Self::Granted | Self::Claimed | Self::Releasing)
    }
}

/// Value of the allocation annotations that older readers know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodNames {
    /// Pool they are of; in `alloc-status` only.
    #[serde(default, rename = "poolRef", skip_serializing_if = "Option::is_none")]
    pub pool_ref: Option<String>,
    /// Pod names.
    #[serde(default)]
    pub pods: Vec<String>,
}
