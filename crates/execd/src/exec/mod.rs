//! The execution engine: commands, the entrypoint and tasks all run here.
//!
//! One supervisor per execution reads the pipes into the journal, waits for the end by pidfd, and
//! carries out timeouts and stops. Nothing polls.

mod child;
mod ledger;
mod outcome;
mod registry;
mod stdin;
mod supervise;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api_types::ids::ExecutionId;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

pub use child::{Child, adopt_orphans};
pub use ledger::open as open_ledger;
pub use outcome::{End, Outcome, looks_killed, signal_name};
pub(crate) use registry::{Conductor, pipe};
pub use registry::{Engine, EngineError, Settings};
pub use stdin::Stdin;
pub(crate) use supervise::{Outputs, Since, group_since, settle};

use crate::journal::Journal;
pub use crate::sys::Credentials;

/// What to run, fully decided.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Program and arguments.
    pub argv: Vec<OsString>,
    /// The whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory; the daemon's own if none.
    pub cwd: Option<PathBuf>,
    /// Identity; the daemon's own if none.
    pub credentials: Option<Credentials>,
    /// Whether standard error stays apart from standard output.
    pub split: bool,
    /// Time after which the process group is killed.
    pub timeout: Option<Duration>,
    /// What was asked for, for its status.
    pub content: String,
    /// Its standard input.
    pub input: Input,
    /// Whether it is stopped when its last reader has gone.
    pub while_read: bool,
    /// Whether it may outlive this daemon: a later one finds it and does not end it.
    pub outlives: bool,
}

/// Standard input of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Input {
    /// None: `/dev/null`.
    #[default]
    Null,
    /// These bytes, then its end.
    Bytes(Vec<u8>),
    /// These bytes, then what is sent later.
    Open(Vec<u8>),
}

/// Time between TERM and KILL when nothing else was said.
pub const GRACE: Duration = Duration::from_secs(3);

/// A stop that was asked for: TERM now, KILL after the grace.
#[derive(Debug, Clone, Copy)]
pub struct Stop {
    /// Time between the two.
    pub grace: Duration,
}

/// How far an execution is.
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    /// The process runs.
    Running,
    /// It has ended; others of its group may still be stopping.
    Ended(Arc<Outcome>),
    /// It has ended, and so has what a stop of its group was to end.
    Settled(Arc<Outcome>),
}

/// One execution: what it wrote, how it is, and a way to stop it.
pub struct Execution {
    /// Its id.
    pub id: ExecutionId,
    /// What was asked for.
    pub content: String,
    /// Process id; none when it could not be started.
    pub pid: Option<i32>,
    /// Start time.
    pub started_at: Timestamp,
    /// What it wrote.
    pub journal: Arc<Journal>,
    /// The session it runs in.
    pub session: Option<String>,
    /// Its standard input, where it has one.
    pub stdin: Option<Stdin>,
    /// Whether standard error is told apart.
    pub split: bool,
    pub(crate) while_read: bool,
    pub(crate) readers: AtomicUsize,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) stop: mpsc::Sender<Stop>,
}

impl Execution {
    /// How it ended, if it has.
    pub fn outcome(&self) -> Option<Arc<Outcome>> {
        match &*self.phase.borrow() {
            Phase::Running => None,
            Phase::Ended(outcome) | Phase::Settled(outcome) => Some(outcome.clone()),
        }
    }

    /// Completes when it has ended.
    pub async fn ended(&self) -> Arc<Outcome> {
        let mut phase = self.phase.clone();
        loop {
            if let Phase::Ended(outcome) | Phase::Settled(outcome) = &*phase.borrow_and_update() {
                return outcome.clone();
            }
            if phase.changed().await.is_err() {
                // The supervisor publishes an outcome before it goes; only a dropped runtime is left.
                std::future::pending::<()>().await;
            }
        }
    }

    /// A live reader comes.
    pub fn reader_joined(&self) {
        self.readers.fetch_add(1, Ordering::Relaxed);
    }

    /// A live reader has gone; the last takes the execution with it, where that was asked for.
    pub fn reader_left(&self) {
        if self.readers.fetch_sub(1, Ordering::Relaxed) == 1 && self.while_read {
            // A full queue means that a stop is under way already.
            let _ = self.stop.try_send(Stop { grace: GRACE });
        }
    }

    /// Asks for a stop, and completes when the process and its group have ended. False if it had
    /// ended before.
    pub async fn stop(&self, stop: Stop) -> bool {
        let running = self.outcome().is_none();
        // A full queue means that a stop is under way already.
        let _ = self.stop.try_send(stop);
        let mut phase = self.phase.clone();
        let _ = phase.wait_for(|phase| matches!(phase, Phase::Settled(_))).await;
        running
    }
}
