//! The entrypoint that a claim brought: started once, told about until the pod is reset.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use api_types::execd::{EntrypointState, EntrypointStatus};
use api_types::ids::ExecutionId;
use jiff::Timestamp;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{ClaimRecord, EntrypointMark};
use crate::envs::Env;
use crate::exec::{End, Engine, Execution, Launch, Outcome};
use crate::sys;

/// Bytes of the last output that its status carries.
const TAIL: usize = 4 << 10;
/// How often, and after what time, it is looked whether a process that has ended was reaped.
const REAPED_TRIES: u32 = 40;
/// See `REAPED_TRIES`.
const REAPED_AFTER: Duration = Duration::from_millis(25);

/// An entrypoint, started by this execd or by one before it.
#[derive(Clone)]
pub enum Entrypoint {
    /// Ours.
    Own(Arc<Execution>),
    /// It could not even be tried.
    Refused(EntrypointStatus),
    /// Another's, of which the mark is left, and how it ended once that is seen.
    Inherited(EntrypointMark, watch::Receiver<Option<EntrypointStatus>>),
}

impl Entrypoint {
    /// Starts it: as it is, without a shell, in the environment of the claim.
    pub fn start(record: &ClaimRecord, base: &Env, engine: &Engine) -> Self {
        let mut env = base.clone();
        record.overlay(&mut env);
        let launch = Launch {
            argv: record.entrypoint.iter().map(Into::into).collect(),
            env: env.into_iter().collect(),
            cwd: None,
            credentials: None,
            split: false,
            timeout: None,
            content: record.entrypoint.join(" "),
            input: crate::exec::Input::Null,
            while_read: false,
            outlives: true,
        };
        match engine.start(ExecutionId::new(uuid::Uuid::new_v4().simple().to_string()), &launch) {
            Ok(execution) => Self::Own(execution),
            Err(error) => Self::Refused(ended(Some(126), error.to_string(), None)),
        }
    }

    /// Finds the one that an earlier execd started; it is never started again.
    pub fn adopt(record: &ClaimRecord) -> Option<Self> {
        if record.entrypoint.is_empty() {
            return None;
        }
        let lost = || ended(None, "execd was replaced while it started the entrypoint".to_owned(), None);
        Some(record.entrypoint_mark.clone().map_or_else(|| Self::Refused(lost()), Self::follow))
    }

    /// Follows a process that an earlier execd started: its end is seen by its descriptor.
    fn follow(mark: EntrypointMark) -> Self {
        let (told, end) = watch::channel(None);
        let alive = mark.pid.filter(|pid| mark.end.is_none() && start_ticks(*pid) == mark.start_ticks);
        // Asked again with the descriptor in hand: the number may have changed its owner meanwhile.
        let pidfd = alive.and_then(|pid| Some((pid, sys::pidfd_open(pid).ok()?)));
        let pidfd = pidfd.filter(|(pid, _)| start_ticks(*pid) == mark.start_ticks).map(|(_, pidfd)| sys::watch(pidfd));
        if let Some(Ok(pidfd)) = pidfd {
            let started_at = mark.started_at;
            tokio::spawn(async move {
                if pidfd.readable().await.is_ok() {
                    told.send_replace(Some(foreign_end(&pidfd, started_at).await));
                }
            });
        }
        Self::Inherited(mark, end)
    }

    /// Completes when it has ended, where it is not ours; at once where it is.
    pub async fn foreign_end(&self) {
        if let Self::Inherited(mark, end) = self
            && of_mark(mark, end).state == EntrypointState::Running
        {
            let _ = end.clone().wait_for(Option::is_some).await;
        }
    }

    /// What a later execd needs to find it.
    pub fn mark(&self) -> Option<EntrypointMark> {
        match self {
            Self::Own(execution) => Some(EntrypointMark {
                pid: execution.pid,
                start_ticks: execution.pid.and_then(start_ticks),
                started_at: execution.started_at,
                end: execution.outcome().map(|_| self.status()),
            }),
            Self::Refused(status) => Some(EntrypointMark {
                pid: None,
                start_ticks: None,
                started_at: Timestamp::now(),
                end: Some(status.clone()),
            }),
            Self::Inherited(mark, end) => {
                let end = end.borrow().clone().or_else(|| mark.end.clone());
                Some(EntrypointMark { end, ..mark.clone() })
            }
        }
    }

    /// The execution, where it is ours.
    pub fn execution(&self) -> Option<Arc<Execution>> {
        match self {
            Self::Own(execution) => Some(execution.clone()),
            _ => None,
        }
    }

    /// How it is now.
    pub fn status(&self) -> EntrypointStatus {
        match self {
            Self::Own(execution) => of_execution(execution),
            Self::Refused(status) => status.clone(),
            Self::Inherited(mark, end) => of_mark(mark, end),
        }
    }

    /// How it is when it has ended, or after the wait.
    pub async fn wait(&self, longest: Duration) -> EntrypointStatus {
        match self {
            Self::Own(execution) => {
                let _ = timeout(longest, execution.ended()).await;
            }
            Self::Inherited(mark, end) if of_mark(mark, end).state == EntrypointState::Running => {
                let mut end = end.clone();
                let _ = timeout(longest, end.wait_for(Option::is_some)).await;
            }
            _ => {}
        }
        self.status()
    }
}

/// The end of a process that somebody else reaps, who may take a moment for that.
async fn foreign_end(pidfd: &AsyncFd<OwnedFd>, started_at: Timestamp) -> EntrypointStatus {
    for _ in 0..REAPED_TRIES {
        if let Some(status) = sys::foreign_exit(pidfd.get_ref()) {
            let outcome = Outcome::unseen(End::Ended(status));
            let message = (!outcome.success()).then(|| outcome.describe());
            return EntrypointStatus {
                state: EntrypointState::Exited,
                exit_code: Some(outcome.shell_code()),
                message,
                started_at: Some(started_at),
                finished_at: Some(outcome.finished_at),
            };
        }
        tokio::time::sleep(REAPED_AFTER).await;
    }
    EntrypointStatus { finished_at: Some(Timestamp::now()), ..unknown(Some(started_at)) }
}

fn unknown(started_at: Option<Timestamp>) -> EntrypointStatus {
    ended(None, "it ended while execd was being replaced, so its exit code is not known".to_owned(), started_at)
}

fn running(started_at: Timestamp) -> EntrypointStatus {
    EntrypointStatus {
        state: EntrypointState::Running,
        exit_code: None,
        message: None,
        started_at: Some(started_at),
        finished_at: None,
    }
}

fn of_execution(execution: &Execution) -> EntrypointStatus {
    let Some(outcome) = execution.outcome() else {
        return running(execution.started_at);
    };
    let message = match &outcome.end {
        End::NotStarted { reason, .. } => reason.clone(),
        _ => {
            let tail = String::from_utf8_lossy(&execution.journal.tail(TAIL)).into_owned();
            let tail = tail.trim_end();
            match (outcome.success(), tail.is_empty()) {
                (true, _) => tail.to_owned(),
                (false, true) => outcome.describe(),
                (false, false) => format!("{}: {tail}", outcome.describe()),
            }
        }
    };
    EntrypointStatus {
        state: EntrypointState::Exited,
        exit_code: Some(outcome.shell_code()),
        message: (!message.is_empty()).then_some(message),
        started_at: Some(execution.started_at),
        finished_at: Some(outcome.finished_at),
    }
}

fn of_mark(mark: &EntrypointMark, end: &watch::Receiver<Option<EntrypointStatus>>) -> EntrypointStatus {
    if let Some(end) = end.borrow().clone().or_else(|| mark.end.clone()) {
        return end;
    }
    // A zombie's end is on its way, but only where somebody waits for it.
    let alive = mark.pid.is_some_and(|pid| start_ticks(pid) == mark.start_ticks) || end.has_changed().is_ok();
    if alive { running(mark.started_at) } else { unknown(Some(mark.started_at)) }
}

fn ended(exit_code: Option<i32>, message: String, started_at: Option<Timestamp>) -> EntrypointStatus {
    EntrypointStatus {
        state: EntrypointState::Exited,
        exit_code,
        message: Some(message),
        started_at,
        finished_at: None,
    }
}

/// Start of a living process in the kernel's ticks.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?;
    // The 22nd field; the state is the third.
    let ticks = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(ticks)
}
