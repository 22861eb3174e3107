//! Tasks handed over by task-executor: each runs under a secret handle, and whoever knows that may
//! ask for its state and stop it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use api_types::ErrorCode;
use api_types::ids::{ExecutionId, TaskHandle};
use api_types::tasks::{Injection, ProcessStatus, ProcessTask, Running, Task, TaskHandOver, Terminated};
use parking_lot::Mutex;

use crate::envs::{self, Env};
use crate::exec::{End, Engine, Execution, Launch, Outcome, Stop};
use crate::paths;

/// Tasks that are remembered after they have ended.
const KEEP: usize = 128;
/// Bytes of the last output that a failed task's message carries.
const TAIL: usize = 4 << 10;

/// Why a task was not taken.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct TaskError {
    /// Code of the catalogue.
    pub code: ErrorCode,
    /// What was wrong.
    pub message: String,
}

fn invalid(message: impl Into<String>) -> TaskError {
    TaskError { code: ErrorCode::InvalidTask, message: message.into() }
}

#[derive(Default)]
struct Known {
    all: HashMap<TaskHandle, Arc<Execution>>,
    order: VecDeque<TaskHandle>,
}

/// The tasks of this container.
#[derive(Default)]
pub struct Tasks(Mutex<Known>);

impl Tasks {
    /// Starts the task that is named in the hand-over. The same handle again is the same task.
    ///
    /// # Errors
    /// The task can't be used as it is, or too many run.
    pub fn start(&self, over: &TaskHandOver, base: &Env, engine: &Engine) -> Result<ProcessStatus, TaskError> {
        if over.handle.len() != 32 || !over.handle.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(invalid("handle must be 32 hex digits"));
        }
        let handle = TaskHandle::new(over.handle.clone());
        let mut known = self.0.lock();
        if let Some(execution) = known.all.get(&handle) {
            return Ok(status(execution));
        }
        let process = find(&over.signed_body, &over.name)?;
        let launch = launch(&process, &over.env, base)?;
        let id = ExecutionId::new(uuid::Uuid::new_v4().simple().to_string());
        let execution = engine
            .start(id, &launch)
            .map_err(|e| TaskError { code: ErrorCode::TooManyTasks, message: e.to_string() })?;
        known.all.insert(handle.clone(), execution.clone());
        known.order.push_back(handle);
        while known.order.len() > KEEP {
            let ended = known.order.iter().position(|h| known.all.get(h).is_none_or(|e| e.outcome().is_some()));
            let Some(handle) = ended.and_then(|index| known.order.remove(index)) else { break };
            known.all.remove(&handle);
        }
        Ok(status(&execution))
    }

    fn find(&self, handle: &str) -> Result<Arc<Execution>, TaskError> {
        let found = self.0.lock().all.get(&TaskHandle::new(handle)).cloned();
        found.ok_or_else(|| TaskError { code: ErrorCode::TaskNotFound, message: "no task has this handle".to_owned() })
    }

    /// How a task is when it has ended, or after the wait.
    ///
    /// # Errors
    /// No task has this handle.
    pub async fn status(&self, handle: &str, wait: Duration) -> Result<ProcessStatus, TaskError> {
        let execution = self.find(handle)?;
        let _ = tokio::time::timeout(wait, execution.ended()).await;
        Ok(status(&execution))
    }

    /// Stops a task and its process group.
    ///
    /// # Errors
    /// No task has this handle.
    pub async fn stop(&self, handle: &str, grace: Duration) -> Result<ProcessStatus, TaskError> {
        let execution = self.find(handle)?;
        execution.stop(Stop { grace }).await;
        Ok(status(&execution))
    }
}

/// The process of the task with this name in the platform's own words.
fn find(body: &str, name: &str) -> Result<ProcessTask, TaskError> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Body {
        Many(Vec<Task>),
        One(Box<Task>),
    }
    let tasks = match serde_json::from_str(body) {
        Ok(Body::Many(tasks)) => tasks,
        Ok(Body::One(task)) => vec![*task],
        Err(error) => return Err(invalid(format!("signedBody is neither a task nor a list of tasks: {error}"))),
    };
    let task = tasks
        .into_iter()
        .find(|t| t.name == name)
        .ok_or_else(|| invalid(format!("signedBody has no task {name:?}")))?;
    task.process.ok_or_else(|| TaskError {
        code: ErrorCode::TaskKindUnsupported,
        message: format!("task {name:?} has no process"),
    })
}

fn launch(process: &ProcessTask, below: &BTreeMap<String, String>, base: &Env) -> Result<Launch, TaskError> {
    let argv: Vec<&String> = process.command.iter().chain(&process.args).collect();
    match argv.first() {
        None => return Err(invalid("process.command is empty")),
        Some(program) if program.is_empty() => return Err(invalid("process.command[0] is empty")),
        Some(_) => {}
    }
    if let Some(index) = argv.iter().position(|a| a.contains('\0')) {
        return Err(invalid(format!("argument {index} contains a zero byte")));
    }
    let own: BTreeMap<String, String> = process.env.iter().map(|e| (e.name.clone(), e.value.clone())).collect();
    envs::validate(below).and_then(|()| envs::validate(&own)).map_err(|e| invalid(format!("process.env: {e}")))?;
    let timeout = match process.timeout_seconds {
        Some(seconds) if seconds < 0 => return Err(invalid("process.timeoutSeconds is negative")),
        Some(seconds) if seconds > 0 => Some(Duration::from_secs(seconds.cast_unsigned())),
        _ => None,
    };
    let mut env = base.clone();
    envs::overlay(&mut env, below);
    envs::overlay(&mut env, &own);
    let cwd = process.working_dir.as_deref().filter(|d| !d.is_empty());
    let cwd = cwd.map(|dir| paths::file_path(dir, &env, std::path::Path::new("/"))).transpose();
    Ok(Launch {
        argv: argv.iter().map(Into::into).collect(),
        env: env.into_iter().collect(),
        cwd: cwd.map_err(|e| invalid(format!("process.workingDir: {e}")))?,
        credentials: None,
        split: false,
        timeout,
        content: process.command.join(" "),
        input: crate::exec::Input::Null,
        while_read: false,
        outlives: false,
    })
}

fn status(execution: &Execution) -> ProcessStatus {
    let injection = Some(Injection::Execd);
    match execution.outcome() {
        None => {
            let running = Some(Running { started_at: Some(execution.started_at) });
            ProcessStatus { running, injection, ..ProcessStatus::default() }
        }
        Some(outcome) => {
            let tail = if outcome.success() { Vec::new() } else { execution.journal.tail(TAIL) };
            let terminated = Some(terminated(&outcome, execution, &String::from_utf8_lossy(&tail)));
            ProcessStatus { terminated, injection, ..ProcessStatus::default() }
        }
    }
}

fn terminated(outcome: &Outcome, execution: &Execution, tail: &str) -> Terminated {
    let (exit_code, reason) = match &outcome.end {
        _ if outcome.timed_out.is_some() => (137, "TaskTimeout"),
        End::NotStarted { code, .. } => (*code, "StartError"),
        _ if outcome.success() => (0, "Succeeded"),
        _ if outcome.signal().is_some() && !outcome.stopped => (outcome.shell_code(), "ProcessCrashed"),
        _ => (outcome.shell_code(), "Failed"),
    };
    let mut message = if outcome.success() { String::new() } else { outcome.details().join("; ") };
    if !tail.trim_end().is_empty() {
        message = format!("{message}: {}", tail.trim_end());
    }
    Terminated {
        exit_code,
        signal: outcome.signal(),
        reason: Some(reason.to_owned()),
        message: (!message.is_empty()).then_some(message),
        started_at: Some(execution.started_at),
        finished_at: Some(outcome.finished_at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_task_of_one_or_many() {
        let one = r#"{"name":"a","process":{"command":["x"],"args":["y"]}}"#;
        for body in [one.to_owned(), format!(r#"[{{"name":"b"}},{one}]"#)] {
            assert_eq!(find(&body, "a").unwrap().command, ["x"]);
        }
        assert_eq!(find(one, "b").unwrap_err().code, ErrorCode::InvalidTask);
        assert_eq!(find(r#"[{"name":"b"}]"#, "b").unwrap_err().code, ErrorCode::TaskKindUnsupported);
        assert_eq!(find("[", "b").unwrap_err().code, ErrorCode::InvalidTask);
    }

    #[test]
    fn what_cannot_run_is_named() {
        let of = |json: &str| launch(&serde_json::from_str(json).unwrap(), &BTreeMap::new(), &Env::new());
        assert!(of(r#"{}"#).unwrap_err().message.contains("command"));
        assert!(of(r#"{"command":["x"],"env":[{"name":"A=B"}]}"#).unwrap_err().message.contains("A=B"));
        assert!(of(r#"{"command":["x"],"timeoutSeconds":-1}"#).unwrap_err().message.contains("timeoutSeconds"));
        let launch = of(r#"{"command":["x"],"args":["y"],"env":[{"name":"A","value":"1"},{"name":"A","value":"2"}],"timeoutSeconds":2}"#).unwrap();
        assert_eq!(launch.argv, ["x", "y"]);
        assert_eq!(launch.env, [("A".into(), "2".into())]);
        assert_eq!(launch.timeout, Some(Duration::from_secs(2)));
    }
}
