//! The execution engine: commands, the entrypoint and tasks all run here.
//!
//! One supervisor per execution reads the pipes into the journal, waits for the end by pidfd, and
//! carries out timeouts and stops. Nothing polls.

mod child;
mod outcome;
mod registry;
mod supervise;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api_types::ids::ExecutionId;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

pub use child::{Child, adopt_orphans};
pub use outcome::{End, Outcome, signal_name};
pub use registry::{Engine, EngineError};

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
}

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
    phase: watch::Receiver<Phase>,
    stop: mpsc::Sender<Stop>,
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

    /// Asks for a stop, and completes when the process and its group have ended. False if it had
    /// ended before.
    pub async fn stop(&self, stop: Stop) -> bool {
        let running = self.outcome().is_none();
        // A full queue means that a stop is under way already.
        let _ = self.stop.try_send(stop);
        let mut phase = self.phase.clone();
        let _ = phase.wait_for(|p| matches!(p, Phase::Settled(_))).await;
        running
    }
}
