//! Sessions: a shell that lives from run to run, so that variables, functions and the working directory
//! stay. Runs of one session come one after the other.
//!
//! A shell that ends, because a run said `exit` or was killed, is replaced before the next run; the new
//! one has the exported variables and the directory that the last whole run left.

mod run;
mod script;
mod shell;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api_types::ids::ExecutionId;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::envs::Env;
use crate::exec::{Engine, EngineError, Execution, Input, Launch, Stop};
use crate::kept::{Idle, Kept};
use run::{Pipes, Run, carry_out};
use shell::Shell;

/// Why a session does not run something.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// There are as many as may be.
    #[error("there are {0} sessions already")]
    TooMany(usize),
    /// No session has this id.
    #[error("no session has the id {0}")]
    Unknown(String),
    /// It runs something.
    #[error("session is busy: it runs execution {0}")]
    Busy(String),
    /// Too many executions run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Its shell can't be started.
    #[error("the session's shell cannot be started: {0}")]
    Shell(#[from] std::io::Error),
}

/// The shell of new sessions.
#[derive(Debug, Clone)]
pub struct Program {
    /// Path.
    pub path: OsString,
    /// Whether it is bash.
    pub bash: bool,
}

/// What a run is asked for.
pub struct Request {
    /// The command.
    pub command: String,
    /// Directory of this run alone.
    pub cwd: Option<PathBuf>,
    /// Time after which it is killed.
    pub timeout: Option<Duration>,
    /// Environment of the sandbox now.
    pub env: Env,
}

struct State {
    shell: Option<Shell>,
    /// Directory in which the next run begins.
    cwd: PathBuf,
    /// The shell is not there, because a run had a directory of its own.
    astray: bool,
    exports: Option<Vec<u8>>,
    /// Environment that the shell was told of.
    env: Env,
    busy: bool,
    last: Option<Arc<Execution>>,
    used: Instant,
    gone: bool,
}

/// One session.
pub struct Session {
    /// Its id.
    pub id: String,
    program: Program,
    /// Variables of this session, over the sandbox's.
    own: BTreeMap<String, String>,
    state: Mutex<State>,
}

/// How a session is.
pub struct Status {
    /// Its working directory.
    pub cwd: PathBuf,
    /// What it runs.
    pub running: Option<String>,
}

/// All sessions.
#[derive(Clone)]
pub struct Sessions {
    kept: Kept<Session>,
}

impl Idle for Session {
    fn idle_until(&self, idle: Duration) -> Instant {
        let state = self.state.lock();
        if state.busy { Instant::now() + idle } else { state.used + idle }
    }
}

impl Sessions {
    /// None yet; at most `max`, each ended after `idle` without a run.
    pub fn new(max: usize, idle: Duration) -> Self {
        Self { kept: Kept::new(max, idle) }
    }

    /// A new session. Its shell starts with the first run.
    ///
    /// # Errors
    /// There are too many.
    pub fn create(
        &self,
        id: String,
        program: Program,
        cwd: PathBuf,
        own: BTreeMap<String, String>,
    ) -> Result<Arc<Session>, SessionError> {
        let state = State {
            shell: None,
            cwd,
            astray: false,
            exports: None,
            env: Env::new(),
            busy: false,
            last: None,
            used: Instant::now(),
            gone: false,
        };
        let session = Arc::new(Session { id: id.clone(), program, own, state: Mutex::new(state) });
        self.kept.insert(id, session.clone()).map_err(SessionError::TooMany)?;
        let (sessions, unused) = (self.clone(), Arc::downgrade(&session));
        tokio::spawn(async move {
            if let Some(session) = sessions.kept.unused(unused).await {
                let _ = sessions.delete(&session.id).await;
            }
        });
        Ok(session)
    }

    /// The session with this id.
    ///
    /// # Errors
    /// There is none.
    pub fn find(&self, id: &str) -> Result<Arc<Session>, SessionError> {
        self.kept.find(id).ok_or_else(|| SessionError::Unknown(id.to_owned()))
    }

    /// All sessions, by id.
    pub fn list(&self) -> Vec<Arc<Session>> {
        self.kept.list()
    }

    /// The last run of the session with this id.
    pub fn last_run(&self, id: &str) -> Option<Arc<Execution>> {
        self.kept.find(id)?.state.lock().last.clone()
    }

    /// Ends a session and what it runs. Background jobs of earlier runs live on.
    ///
    /// # Errors
    /// There is none.
    pub async fn delete(&self, id: &str) -> Result<(), SessionError> {
        let session = self.kept.remove(id).ok_or_else(|| SessionError::Unknown(id.to_owned()))?;
        let (shell, running) = {
            let mut state = session.state.lock();
            state.gone = true;
            (state.shell.take(), state.last.clone().filter(|_| state.busy))
        };
        if let Some(shell) = shell {
            shell.end();
        }
        if let Some(running) = running {
            running.stop(Stop { grace: Duration::ZERO }).await;
        }
        Ok(())
    }
}

impl Session {
    /// How it is.
    pub fn status(&self) -> Status {
        let state = self.state.lock();
        let running = state.last.as_ref().filter(|_| state.busy).map(|e| e.id.as_str().to_owned());
        Status { cwd: state.cwd.clone(), running }
    }

    /// Begins a run.
    ///
    /// # Errors
    /// The session runs something, has no shell, or too many executions run.
    pub fn run(self: &Arc<Self>, request: Request, engine: &Engine) -> Result<Arc<Execution>, SessionError> {
        let mut state = self.state.lock();
        if state.gone {
            return Err(SessionError::Unknown(self.id.clone()));
        }
        if state.busy {
            let running = state.last.as_ref().map(|e| e.id.as_str().to_owned()).unwrap_or_default();
            return Err(SessionError::Busy(running));
        }
        engine.admit()?;
        let pipes = Pipes::new()?;
        let (shell, mut before) = self.shell(&mut state, &request.env)?;
        if let Some(cwd) = &request.cwd {
            before.extend_from_slice(&script::enter(cwd));
        } else if std::mem::take(&mut state.astray) {
            before.extend_from_slice(&script::enter(&state.cwd));
        }
        let launch = Launch {
            argv: Vec::new(),
            env: Vec::new(),
            cwd: None,
            credentials: None,
            split: true,
            timeout: request.timeout,
            content: request.command.clone(),
            input: Input::Null,
            while_read: false,
            outlives: false,
        };
        let id = ExecutionId::new(uuid::Uuid::new_v4().simple().to_string());
        let pid = Some(shell.child.pid());
        let conductor = engine.register(id, &launch, pid, Some(self.id.clone()), None);
        let execution = conductor.execution.clone();
        state.busy = true;
        state.last = Some(execution.clone());
        let (this, own) = (self.clone(), request.cwd);
        let run = Run { command: request.command, before, timeout: request.timeout };
        let done = move |left| this.settle(left, own);
        tokio::spawn(carry_out(shell, pipes, run, conductor, engine.clone(), done));
        Ok(execution)
    }

    /// The shell, a new one if there is none, and what it must be told first.
    fn shell(&self, state: &mut State, env: &Env) -> Result<(Shell, Vec<u8>), SessionError> {
        if let Some(shell) = state.shell.take() {
            // Variables that were set for later commands meanwhile.
            let changed = env.iter().filter(|(name, value)| state.env.get(*name) != Some(*value));
            let words = changed.flat_map(|(name, value)| script::export(name, value)).collect();
            state.env.clone_from(env);
            return Ok((shell, words));
        }
        let mut full = env.clone();
        crate::envs::overlay(&mut full, &self.own);
        let there = state.cwd.is_dir().then_some(&state.cwd);
        let shell = Shell::start(self.program.path.clone(), self.program.bash, &full, there)?;
        state.env.clone_from(env);
        state.astray = false;
        let mut words = Vec::new();
        if self.program.bash {
            // The name in its messages; without it they begin with the path of a descriptor.
            words.extend_from_slice(b"BASH_ARGV0=bash\n");
        }
        words.extend_from_slice(state.exports.as_deref().unwrap_or_default());
        if !words.is_empty() {
            words.push(b'\n');
        }
        Ok((shell, words))
    }

    /// Takes back what a run left.
    fn settle(&self, left: run::Left, own: Option<PathBuf>) {
        let mut state = self.state.lock();
        (state.busy, state.used) = (false, Instant::now());
        let Some(shell) = left.shell else { return };
        if let Some(exports) = left.exports {
            state.exports = Some(exports);
        }
        let now = shell.cwd();
        match (own, now) {
            // The run had a directory of its own and stayed there: the next begins where the session is.
            (Some(own), Some(now)) if std::fs::canonicalize(&own).is_ok_and(|own| own == now) => state.astray = true,
            (_, Some(now)) => state.cwd = now,
            (_, None) => {}
        }
        if state.gone { shell.end() } else { state.shell = Some(shell) }
    }
}
