//! What a supervisor writes of its task: one small file, replaced as a whole.

use std::path::Path;

use api_types::tasks::{Injection, ProcessStatus, Running, Terminated, Waiting};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::proc::ProcId;
use crate::store;

/// Name of the file in the task's directory.
pub const FILE: &str = "state.json";
/// Exit code told for a task whose end nobody saw, or which ran out of time.
const KILLED: i32 = 137;

/// The state of a locally started task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The machine's start under which the process numbers hold.
    pub boot: String,
    /// The supervisor.
    pub supervisor: ProcId,
    /// The task's process, which leads its group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcId>,
    /// The way it came in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub injection: Option<Injection>,
    /// Ways that were not open, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<String>,
    /// When the program ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exit {
    /// Exit code, 128 + signal, or 137 on a timeout.
    pub code: i32,
    /// The signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// One word.
    pub reason: String,
    /// One sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When.
    pub finished_at: Timestamp,
}

impl Exit {
    /// The program's own end.
    pub fn of(code: Option<i32>, signal: Option<i32>, at: Timestamp) -> Self {
        match (code, signal) {
            (Some(0), _) => Self { code: 0, signal: None, reason: "Succeeded".into(), message: None, finished_at: at },
            (Some(code), _) => {
                let message = Some(format!("exited with code {code}"));
                Self { code, signal: None, reason: "Failed".into(), message, finished_at: at }
            }
            (None, signal) => {
                let number = signal.unwrap_or(9);
                let message = Some(format!("ended by signal {number}"));
                Self { code: 128 + number, signal, reason: "Failed".into(), message, finished_at: at }
            }
        }
    }

    /// An end because the time was over, whatever the program made of it.
    pub fn timed_out(seconds: u64, signal: Option<i32>, at: Timestamp) -> Self {
        let message = Some(format!("ran longer than {seconds} s; its process group was stopped"));
        Self { code: KILLED, signal, reason: "TaskTimeout".into(), message, finished_at: at }
    }

    /// A start that failed.
    pub fn not_started(code: i32, message: String, at: Timestamp) -> Self {
        Self { code, signal: None, reason: "StartError".into(), message: Some(message), finished_at: at }
    }

    /// An end that nobody saw.
    pub fn unseen(message: &str, at: Timestamp) -> Self {
        Self {
            code: KILLED,
            signal: None,
            reason: "ProcessCrashed".into(),
            message: Some(message.into()),
            finished_at: at,
        }
    }
}

impl State {
    /// Reads a task's state, if its supervisor has written one.
    pub fn read(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(dir.join(FILE)).ok()?).ok()
    }

    /// Replaces the file. An end is made durable before anybody is told of it.
    pub fn write(&self, dir: &Path) -> std::io::Result<()> {
        let text = serde_json::to_vec(self)?;
        store::replace(&dir.join(FILE), &text, self.exit.is_some())
    }

    /// As the wire tells it.
    pub fn status(&self) -> ProcessStatus {
        let mut status = ProcessStatus { injection: self.injection, ..ProcessStatus::default() };
        match &self.exit {
            Some(exit) => {
                status.terminated = Some(Terminated {
                    exit_code: exit.code,
                    signal: exit.signal,
                    reason: Some(exit.reason.clone()),
                    message: exit.message.clone(),
                    started_at: self.started_at,
                    finished_at: Some(exit.finished_at),
                });
            }
            None if self.started_at.is_some() => status.running = Some(Running { started_at: self.started_at }),
            None => status.waiting = Some(Waiting { reason: Some("Starting".into()), message: None }),
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_state_is_told() {
        let at = Timestamp::UNIX_EPOCH;
        let mut state = State {
            boot: String::new(),
            supervisor: ProcId { pid: 1, start: 1 },
            process: None,
            injection: Some(Injection::Namespaces),
            skipped: Vec::new(),
            started_at: None,
            exit: None,
        };
        assert!(state.status().waiting.is_some() && state.status().running.is_none());
        state.started_at = Some(at);
        assert!(state.status().running.is_some() && state.status().waiting.is_none());
        state.exit = Some(Exit::of(None, Some(9), at));
        let status = state.status();
        let ended = status.terminated.unwrap();
        assert_eq!((ended.exit_code, ended.signal, status.running), (137, Some(9), None));
    }

    #[test]
    fn ends_are_told_apart() {
        let at = Timestamp::UNIX_EPOCH;
        assert_eq!(Exit::of(Some(0), None, at).reason, "Succeeded");
        assert_eq!(Exit::of(Some(3), None, at).code, 3);
        assert_eq!(Exit::timed_out(1, Some(15), at).code, 137);
    }
}
