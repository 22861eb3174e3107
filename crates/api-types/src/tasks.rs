//! The task-executor wire (port 5758): flat tasks, as the published controller and executor exchange them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One task: what to run and, in answers, how it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// Name, unique in its executor; not empty.
    pub name: String,
    /// When its stop was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<Timestamp>,
    /// The process to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessTask>,
    /// A pod to run. Accepted on the wire and refused with `TASK_KIND_UNSUPPORTED`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template_spec: Option<serde_json::Value>,
    /// State of the process; exactly one of its members is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process_status: Option<ProcessStatus>,
}

/// A process: `command` followed by `args`, run without a shell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProcessTask {
    /// Program and first arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Further arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Variables added to the container's environment; the last of a name wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Working directory inside the sandbox container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Seconds after which the whole process group is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i64>,
}

/// A name and a plain value. Tasks have no `valueFrom`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct EnvVar {
    /// Name; no `=` in it.
    pub name: String,
    /// Value.
    #[serde(default)]
    pub value: String,
}

/// State of a process task. Exactly one member is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// Not started yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<Running>,
    /// Ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminated: Option<Terminated>,
    /// By which way the process came into the sandbox container. Ours; older readers ignore it.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "injection")]
    pub injection: Option<Injection>,
}

/// A task that has not started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// One word for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// One sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A task that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// Start time.
    pub started_at: Option<Timestamp>,
}

/// A task that has ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Terminated {
    /// Exit code; 128 + signal when a signal ended it, 137 on a timeout.
    pub exit_code: i32,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// `Succeeded`, `Failed`, `TaskTimeout`, `ProcessCrashed` or `StartError`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// One sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Start time.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// End time.
    #[serde(default)]
    pub finished_at: Option<Timestamp>,
}

/// How a task's process came into the sandbox container, from the least to the most privileged need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Injection {
    /// Handed to execd over loopback: born in the container.
    Execd,
    /// `setns` and the container's cgroup; needs CAP_SYS_ADMIN.
    Namespaces,
    /// A traced process of the container forked it; needs CAP_SYS_PTRACE.
    Ptrace,
    /// Run in `/proc/PID/root`: the container's files, but the executor's cgroup and limits.
    ExecutorCgroup,
}

/// `POST /v1/tasks` of execd: task-executor hands on one task of a signed call.
///
/// execd checks the platform's signature over `signed_body` itself, so that nothing in the pod can
/// start a process by this way that the platform did not ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskHandOver {
    /// Name of the task within `signed_body`.
    pub name: String,
    /// Secret name under which the task is asked about and stopped; 32 hex digits.
    pub handle: String,
    /// The body of the platform's `setTasks` call, as it came (a JSON array of [`Task`], or one [`Task`]).
    pub signed_body: String,
    /// The platform's signature header over it; absent in a pod that carries no key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// Environment to add below the task's own, e.g. what the claim brought.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}
