//! One task for each replica, and how they are counted.

use api_types::crd::{BatchSandbox, TaskTemplate};
use api_types::tasks::{Task, Terminated};
use kube::ResourceExt as _;

use super::merge;
use crate::world::{TasksSeen, Trouble};

/// Reasons that a grant keeps once its task or entrypoint has ended.
pub mod ended {
    /// The task ended with 0.
    pub const TASK_SUCCEEDED: &str = "TaskSucceeded";
    /// The task ended otherwise.
    pub const TASK_FAILED: &str = "TaskFailed";
    /// The entrypoint ended with 0.
    pub const ENTRYPOINT_SUCCEEDED: &str = "EntrypointSucceeded";
    /// The entrypoint ended otherwise, or could not be started.
    pub const ENTRYPOINT_FAILED: &str = "EntrypointFailed";
}

/// What became of a task.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskState {
    /// Not sent, or not started yet.
    Pending,
    /// It runs.
    Running,
    /// It ended.
    Ended(Terminated),
    /// Nothing is known of it.
    Unknown,
}

/// Name of the task of one index.
pub fn name(batch: &BatchSandbox, index: i32) -> String {
    format!("{}-{index}", batch.name_any())
}

/// The task of one index; `None` when the BatchSandbox has no tasks. The error names the field.
pub fn task(batch: &BatchSandbox, index: i32) -> Result<Option<Task>, String> {
    let Some(template) = &batch.spec.task_template else { return Ok(None) };
    let mut value = template.0.clone();
    let mut field = "spec.taskTemplate".to_owned();
    let patch = usize::try_from(index).ok().and_then(|i| batch.spec.shard_task_patches.as_ref()?.get(i));
    if let Some(patch) = patch {
        field = format!("spec.shardTaskPatches[{index}]");
        merge::strategic(&mut value, &patch.0);
    }
    let merged: TaskTemplate = serde_json::from_value(value).map_err(|e| format!("{field}: {e}"))?;
    let Some(mut process) = merged.spec.process else { return Err(format!("{field}.spec.process is missing")) };
    if process.command.is_empty() && process.args.is_empty() {
        return Err(format!("{field}.spec.process.command is empty"));
    }
    if let Some(bad) = process.env.iter().find(|e| e.name.is_empty() || e.name.contains(['=', '\0'])) {
        return Err(format!("{field}.spec.process.env: {:?} is no name of a variable", bad.name));
    }
    process.timeout_seconds = merged.spec.timeout_seconds.or(process.timeout_seconds);
    Ok(Some(Task { name: name(batch, index), process: Some(process), ..Task::default() }))
}

/// Checks the tasks of every index.
pub fn check(batch: &BatchSandbox) -> Result<(), String> {
    let patches = batch.spec.shard_task_patches.as_ref().map_or(0, Vec::len);
    let patches = i32::try_from(patches).unwrap_or(i32::MAX);
    // Beyond the patches every task is the template's, so one of them stands for all.
    (0..batch.spec.replicas.min(patches.saturating_add(1))).try_for_each(|index| task(batch, index).map(|_| ()))
}

/// How the task of one index is, by what its executor said last.
pub fn state(seen: Option<&TasksSeen>, name: &str) -> TaskState {
    let tasks = match seen {
        None => return TaskState::Pending,
        Some(TasksSeen::Silent(_)) => return TaskState::Unknown,
        Some(TasksSeen::Listed(tasks)) => tasks,
    };
    let Some(task) = tasks.iter().find(|t| t.name == name) else { return TaskState::Pending };
    match &task.process_status {
        Some(status) => match (&status.terminated, &status.running) {
            (Some(end), _) => TaskState::Ended(end.clone()),
            (None, Some(_)) => TaskState::Running,
            (None, None) => TaskState::Pending,
        },
        None => TaskState::Pending,
    }
}

/// Why a task failed, for people.
pub fn failure(name: &str, end: &Terminated) -> Trouble {
    let reason = end.reason.clone().unwrap_or_else(|| "Failed".to_owned());
    let detail = end.message.as_deref().filter(|m| !m.is_empty()).map(|m| format!(": {m}")).unwrap_or_default();
    Trouble::new(ended::TASK_FAILED, format!("task {name} ended with exit code {} ({reason}){detail}", end.exit_code))
}

/// The five counters of tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Running.
    pub running: i32,
    /// Ended with 0.
    pub succeed: i32,
    /// Ended otherwise.
    pub failed: i32,
    /// Not started.
    pub pending: i32,
    /// Nothing known.
    pub unknown: i32,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn batch(spec: serde_json::Value) -> BatchSandbox {
        BatchSandbox::new("b", serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn patches_change_their_task_only_and_env_merges_by_name() {
        let batch = batch(json!({"replicas": 2,
            "taskTemplate": {"spec": {"timeoutSeconds": 9, "process": {"command": ["a"], "env": [{"name": "K", "value": "1"}]}}},
            "shardTaskPatches": [{"spec": {"timeoutSeconds": 5, "process": {"env": [{"name": "K", "value": "2"}, {"name": "L", "value": "3"}]}}}]}));
        let first = task(&batch, 0).unwrap().unwrap().process.unwrap();
        let env: Vec<_> = first.env.iter().map(|e| (e.name.as_str(), e.value.as_str())).collect();
        assert_eq!(env, [("K", "2"), ("L", "3")]);
        assert_eq!(first.timeout_seconds, Some(5));
        let second = task(&batch, 1).unwrap().unwrap();
        assert_eq!(second.name, "b-1");
        assert_eq!(second.process.unwrap().timeout_seconds, Some(9));
    }

    #[test]
    fn a_task_without_process_is_refused_by_name() {
        let error = check(&batch(json!({"replicas": 1, "taskTemplate": {"spec": {}}}))).unwrap_err();
        assert_eq!(error, "spec.taskTemplate.spec.process is missing");
    }

    #[test]
    fn another_owners_task_is_not_ours() {
        let seen = TasksSeen::Listed(vec![Task { name: "other-0".into(), ..Task::default() }]);
        assert_eq!(state(Some(&seen), "b-0"), TaskState::Pending);
    }
}
