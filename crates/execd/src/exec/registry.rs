//! Which executions there are: ids, admission, and how long the ended ones are kept.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use api_types::ids::ExecutionId;
use jiff::Timestamp;
use nix::fcntl::OFlag;
use parking_lot::Mutex;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::supervise::{Outputs, supervise};
use super::{Child, End, Execution, Launch, Outcome, Phase};
use crate::journal::{EXECUTION_CAP, Journal, TOTAL_CAP};
use crate::sys::{self, Sink, SpawnPlan};

/// Executions that may run at once.
const MAX_RUNNING: usize = 512;
/// Ended executions that stay readable.
const MAX_ENDED: usize = 256;
/// Seconds for which an ended execution stays readable.
const KEEP_SECONDS: i64 = 3600;
/// Bytes of the command text that its status repeats.
const CONTENT_CAP: usize = 64 << 10;

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// As many run as may.
    #[error("{MAX_RUNNING} executions run already")]
    TooMany,
}

#[derive(Default)]
struct Known {
    all: HashMap<ExecutionId, Arc<Execution>>,
    ended: VecDeque<ExecutionId>,
    running: usize,
}

/// The engine: starts executions and finds them again.
#[derive(Clone, Default)]
pub struct Engine {
    known: Arc<Mutex<Known>>,
    held: Arc<AtomicUsize>,
}

impl Engine {
    /// Starts one. A process that can't be started is an execution that has ended, so that its
    /// status can be asked for like any other's.
    ///
    /// # Errors
    /// Too many run.
    pub fn start(&self, id: ExecutionId, launch: &Launch) -> Result<Arc<Execution>, EngineError> {
        self.prune();
        if self.known.lock().running >= MAX_RUNNING {
            return Err(EngineError::TooMany);
        }
        let journal = Arc::new(Journal::new(EXECUTION_CAP, self.held.clone()));
        let (phase_in, phase) = watch::channel(Phase::Running);
        let (stop, stop_out) = mpsc::channel(1);
        let begun = Instant::now();
        let started = spawn(launch);
        let execution = Arc::new(Execution {
            id: id.clone(),
            content: shorten(&launch.content),
            pid: started.as_ref().ok().map(|(child, _)| child.pid()),
            started_at: Timestamp::now(),
            journal: journal.clone(),
            phase,
            stop,
        });
        {
            let mut known = self.known.lock();
            known.all.insert(id.clone(), execution.clone());
            known.running += 1;
        }
        match started {
            Ok((child, outputs)) => {
                let (engine, timeout) = (self.clone(), launch.timeout);
                tokio::spawn(async move {
                    let ended = move || engine.note_end(id);
                    supervise(child, outputs, journal, timeout, begun, stop_out, phase_in, ended).await;
                });
            }
            Err(error) => {
                self.note_end(id);
                phase_in.send_replace(Phase::Settled(Arc::new(not_started(launch, &error))));
            }
        }
        Ok(execution)
    }

    /// The execution with this id.
    pub fn find(&self, id: &ExecutionId) -> Option<Arc<Execution>> {
        self.known.lock().all.get(id).cloned()
    }

    /// Executions whose process runs.
    pub fn running(&self) -> Vec<Arc<Execution>> {
        self.known.lock().all.values().filter(|e| e.outcome().is_none()).cloned().collect()
    }

    fn note_end(&self, id: ExecutionId) {
        let mut known = self.known.lock();
        known.running = known.running.saturating_sub(1);
        known.ended.push_back(id);
    }

    /// Forgets ended executions past the bounds of number, age and memory, the oldest first.
    fn prune(&self) {
        let mut known = self.known.lock();
        let now = Timestamp::now().as_second();
        while let Some(id) = known.ended.front() {
            let old = known
                .all
                .get(id)
                .and_then(|e| e.outcome())
                .is_some_and(|o| o.finished_at.as_second() + KEEP_SECONDS < now);
            let full = known.ended.len() > MAX_ENDED || self.held.load(Ordering::Relaxed) > TOTAL_CAP / 2;
            if !old && !full {
                break;
            }
            let Some(id) = known.ended.pop_front() else { break };
            if let Some(execution) = known.all.remove(&id) {
                // A reader may still hold it; what it has not read it is told as lost.
                execution.journal.clear();
            }
        }
    }
}

fn shorten(text: &str) -> String {
    if text.len() <= CONTENT_CAP {
        return text.to_owned();
    }
    format!("{}…", text.get(..text.floor_char_boundary(CONTENT_CAP)).unwrap_or_default())
}

fn spawn(launch: &Launch) -> io::Result<(Child, Outputs)> {
    let (sink, outputs) = if launch.split {
        let (out_read, out_write) = pipe()?;
        let (err_read, err_write) = pipe()?;
        (Sink::Split(out_write, err_write), Outputs::new(out_read, Some(err_read)))
    } else {
        let (read, write) = pipe()?;
        (Sink::Combined(write), Outputs::new(read, None))
    };
    let plan = SpawnPlan {
        argv: &launch.argv,
        env: &launch.env,
        cwd: launch.cwd.as_ref(),
        credentials: launch.credentials.as_ref(),
        sink,
        inherit_stdin: false,
    };
    Ok((Child::new(sys::spawn(plan)?)?, outputs))
}

fn pipe() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    Ok((pipe::Receiver::from_owned_fd(read)?, write))
}

fn not_started(launch: &Launch, error: &io::Error) -> Outcome {
    let program = launch.argv.first().map(OsStr::new).unwrap_or_default().to_string_lossy().into_owned();
    let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
    Outcome {
        end: End::NotStarted { code, reason: format!("cannot start {program}: {error}") },
        timed_out: None,
        stopped: false,
        finished_at: Timestamp::now(),
        elapsed: std::time::Duration::ZERO,
        output_end: 0,
    }
}
