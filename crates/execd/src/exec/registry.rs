//! Which executions there are: ids, admission, and how long the ended ones are kept.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use api_types::ids::ExecutionId;
use jiff::Timestamp;
use nix::fcntl::OFlag;
use parking_lot::Mutex;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::supervise::{Outputs, Supervised, supervise};
use super::{Child, End, Execution, Input, Launch, Outcome, Phase, Stdin, Stop, looks_killed};
use crate::journal::{Journal, Store};
use crate::metrics;
use crate::sys::{self, Sink, SpawnPlan};

/// Ended executions that stay readable.
const MAX_ENDED: usize = 1000;
/// Bytes of the command text that its status repeats.
const CONTENT_CAP: usize = 64 << 10;

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// As many run as may.
    #[error("{0} executions run already")]
    TooMany(usize),
}

#[derive(Default)]
struct Known {
    all: HashMap<ExecutionId, Arc<Execution>>,
    ended: VecDeque<(ExecutionId, Instant)>,
    running: usize,
    /// Somebody sees to it that ended ones are forgotten.
    janitor: bool,
}

/// Bounds and surroundings of the engine.
pub struct Settings {
    /// Executions that may run at once.
    pub max_running: usize,
    /// Time for which an ended execution stays readable.
    pub keep: Duration,
    /// Where output is kept.
    pub store: Arc<Store>,
    /// The sandbox's cgroup, asked whether memory ran out.
    pub cgroup: metrics::Source,
}

impl Default for Settings {
    fn default() -> Self {
        let keep = Duration::from_secs(3600);
        Self { max_running: 2048, keep, store: Arc::default(), cgroup: metrics::Source::default() }
    }
}

/// The engine: starts executions and finds them again.
#[derive(Clone, Default)]
pub struct Engine {
    known: Arc<Mutex<Known>>,
    settings: Arc<Settings>,
    counts: Arc<Counts>,
}

/// How many executions there were, for the figures.
#[derive(Debug, Default)]
pub struct Counts {
    /// Started so far.
    pub started: AtomicU64,
    /// Ended with another end than 0.
    pub failed: AtomicU64,
}

/// The supervisor's half of an execution that was made elsewhere.
pub struct Conductor {
    /// The execution.
    pub execution: Arc<Execution>,
    /// Where its end is published.
    pub phase: watch::Sender<Phase>,
    /// Where stops are asked for.
    pub stops: mpsc::Receiver<Stop>,
}

impl Engine {
    /// An engine.
    pub fn new(settings: Settings) -> Self {
        Self { settings: Arc::new(settings), ..Self::default() }
    }

    /// Where output is kept.
    pub fn store(&self) -> &Arc<Store> {
        &self.settings.store
    }

    /// The figures.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Kills for want of memory so far, if the cgroup tells.
    pub fn oom_kills(&self) -> Option<u64> {
        self.settings.cgroup.oom_kills()
    }

    /// Starts one. A process that can't be started is an execution that has ended, so that its
    /// status can be asked for like any other's.
    ///
    /// # Errors
    /// Too many run.
    pub fn start(&self, id: ExecutionId, launch: &Launch) -> Result<Arc<Execution>, EngineError> {
        self.admit()?;
        let (begun, oom) = (Instant::now(), self.oom_kills());
        let started = spawn(launch);
        let (pid, stdin) = match &started {
            Ok((child, _, stdin)) => (Some(child.pid()), stdin.clone()),
            Err(_) => (None, None),
        };
        let conductor = self.register(id, launch, pid, None, stdin);
        let Conductor { execution, phase, stops } = conductor;
        match started {
            Ok((child, outputs, _)) => {
                let (engine, timeout, of) = (self.clone(), launch.timeout, execution.clone());
                tokio::spawn(async move {
                    let run = Supervised { journal: of.journal.clone(), timeout, begun, stops, phase };
                    let mut judge = |end: &End| looks_killed(end) && engine.oom_kills() > oom;
                    supervise(child, outputs, run, &mut judge, |outcome| engine.note_end(&of, outcome)).await;
                });
            }
            Err(error) => {
                let outcome = not_started(launch, &error);
                self.note_end(&execution, &outcome);
                phase.send_replace(Phase::Settled(Arc::new(outcome)));
            }
        }
        Ok(execution)
    }

    /// Makes room for one more.
    ///
    /// # Errors
    /// Too many run.
    pub fn admit(&self) -> Result<(), EngineError> {
        self.prune();
        let max = self.settings.max_running;
        if self.known.lock().running >= max { Err(EngineError::TooMany(max)) } else { Ok(()) }
    }

    /// Makes an execution known.
    pub fn register(
        &self,
        id: ExecutionId,
        launch: &Launch,
        pid: Option<i32>,
        session: Option<String>,
        stdin: Option<Stdin>,
    ) -> Conductor {
        let (phase_in, phase) = watch::channel(Phase::Running);
        let (stop, stops) = mpsc::channel(1);
        let execution = Arc::new(Execution {
            id: id.clone(),
            content: shorten(&launch.content),
            pid,
            started_at: Timestamp::now(),
            journal: Arc::new(Journal::new(self.settings.store.clone())),
            session,
            stdin,
            split: launch.split,
            while_read: launch.while_read,
            readers: AtomicUsize::new(0),
            phase,
            stop,
        });
        let mut known = self.known.lock();
        known.all.insert(id, execution.clone());
        known.running += 1;
        self.counts.started.fetch_add(1, Ordering::Relaxed);
        Conductor { execution, phase: phase_in, stops }
    }

    /// The execution with this id.
    pub fn find(&self, id: &ExecutionId) -> Option<Arc<Execution>> {
        self.known.lock().all.get(id).cloned()
    }

    /// Executions whose process runs.
    pub fn running(&self) -> Vec<Arc<Execution>> {
        self.known.lock().all.values().filter(|e| e.outcome().is_none()).cloned().collect()
    }

    /// Every execution that is known, the oldest first.
    pub fn all(&self) -> Vec<Arc<Execution>> {
        let mut all: Vec<_> = self.known.lock().all.values().cloned().collect();
        all.sort_by(|a, b| (a.started_at, a.id.as_str()).cmp(&(b.started_at, b.id.as_str())));
        all
    }

    /// How many run now.
    pub fn running_count(&self) -> usize {
        self.known.lock().running
    }

    /// Notes an end; called just before it is published.
    pub fn note_end(&self, execution: &Arc<Execution>, outcome: &Outcome) {
        if !outcome.success() {
            self.counts.failed.fetch_add(1, Ordering::Relaxed);
        }
        self.settings.store.ended(&execution.journal);
        let first = {
            let mut known = self.known.lock();
            known.running = known.running.saturating_sub(1);
            known.ended.push_back((execution.id.clone(), Instant::now()));
            !std::mem::replace(&mut known.janitor, true)
        };
        if first {
            tokio::spawn(self.clone().forget_in_time());
        }
    }

    /// Forgets ended executions when their time is over; one such task, while there are any.
    async fn forget_in_time(self) {
        loop {
            let next = {
                let mut known = self.known.lock();
                let next = known.ended.front().map(|(_, at)| *at + self.settings.keep);
                known.janitor = next.is_some();
                next
            };
            let Some(next) = next else { return };
            tokio::time::sleep_until(next).await;
            self.prune();
        }
    }

    /// Forgets ended executions past the bounds of number and age, the oldest first.
    fn prune(&self) {
        let mut known = self.known.lock();
        let now = Instant::now();
        while let Some((_, at)) = known.ended.front() {
            if known.ended.len() <= MAX_ENDED && *at + self.settings.keep > now {
                break;
            }
            let Some((id, _)) = known.ended.pop_front() else { break };
            // A reader may still hold it, and reads on.
            known.all.remove(&id);
        }
    }
}

fn shorten(text: &str) -> String {
    if text.len() <= CONTENT_CAP {
        return text.to_owned();
    }
    format!("{}…", text.get(..text.floor_char_boundary(CONTENT_CAP)).unwrap_or_default())
}

fn spawn(launch: &Launch) -> io::Result<(Child, Outputs, Option<Stdin>)> {
    let (sink, outputs) = if launch.split {
        let (out_read, out_write) = pipe()?;
        let (err_read, err_write) = pipe()?;
        (Sink::Split(out_write, err_write), Outputs::new(out_read, Some(err_read)))
    } else {
        let (read, write) = pipe()?;
        (Sink::Combined(write), Outputs::new(read, None))
    };
    let (input, stdin) = match &launch.input {
        Input::Null => (sys::Input::Null, None),
        Input::Bytes(bytes) | Input::Open(bytes) => {
            let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
            let open = matches!(launch.input, Input::Open(_));
            (sys::Input::From(read), Some(Stdin::begin(write, bytes.clone(), open)?))
        }
    };
    let plan = SpawnPlan {
        argv: &launch.argv,
        env: &launch.env,
        cwd: launch.cwd.as_ref(),
        credentials: launch.credentials.as_ref(),
        sink,
        input,
    };
    let spawned = sys::spawn(plan)?;
    let child = if launch.outlives { Child::lasting(spawned) } else { Child::new(spawned) };
    Ok((child?, outputs, stdin))
}

/// A pipe whose read end the runtime waits for.
pub fn pipe() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    Ok((pipe::Receiver::from_owned_fd(read)?, write))
}

fn not_started(launch: &Launch, error: &io::Error) -> Outcome {
    let program = launch.argv.first().map(OsStr::new).unwrap_or_default().to_string_lossy().into_owned();
    let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
    Outcome::unseen(End::NotStarted { code, reason: format!("cannot start {program}: {error}") })
}
