//! Terminals: a shell on a pseudo-terminal that outlives its clients. One client types, any number may
//! watch; what was written is replayed to who comes later.

pub mod frames;
mod process;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::envs::Env;
use crate::journal::{Journal, Pace, Store};
use crate::kept::{Idle, Kept};
use crate::session::Program;
use process::Start;
pub use process::{Mode, Process, signal_number};

/// Bytes of output that a terminal replays.
const REPLAY: u64 = 1 << 20;
/// Window of a terminal until a client says another.
const SIZE: (u16, u16) = (80, 24);

/// Why there is no terminal.
#[derive(Debug, thiserror::Error)]
pub enum PtyError {
    /// There are as many as may be.
    #[error("there are {0} terminals already")]
    TooMany(usize),
    /// None has this id.
    #[error("no terminal has the id {0}")]
    Unknown(String),
    /// Another client types in it.
    #[error("the terminal has a client already")]
    Connected,
    /// Its process can't be started.
    #[error("the terminal's shell cannot be started: {0}")]
    Start(#[from] std::io::Error),
}

struct State {
    process: Option<Arc<Process>>,
    /// The client that types; cancelled when another takes over.
    client: Option<CancellationToken>,
    watching: usize,
    size: (u16, u16),
    used: Instant,
    gone: bool,
}

/// One terminal.
pub struct Terminal {
    /// Its id.
    pub id: String,
    /// What it wrote.
    pub journal: Arc<Journal>,
    /// Ends every connection.
    pub closed: CancellationToken,
    program: Program,
    command: Option<String>,
    cwd: PathBuf,
    state: Mutex<State>,
}

/// All terminals.
#[derive(Clone)]
pub struct Terminals {
    kept: Kept<Terminal>,
    store: Arc<Store>,
}

/// What a new terminal is to be.
pub struct Create {
    /// Its shell.
    pub program: Program,
    /// What the shell runs; interactive if nothing.
    pub command: Option<String>,
    /// Working directory.
    pub cwd: PathBuf,
    /// Columns and rows.
    pub size: Option<(u16, u16)>,
}

impl Idle for Terminal {
    fn idle_until(&self, idle: Duration) -> Instant {
        let state = self.state.lock();
        if state.client.is_some() || state.watching > 0 { Instant::now() + idle } else { state.used + idle }
    }
}

impl Terminals {
    /// None yet; at most `max`, each ended after `idle` without a client.
    pub fn new(store: Arc<Store>, max: usize, idle: Duration) -> Self {
        Self { kept: Kept::new(max, idle), store }
    }

    /// A new one. Its process starts with the first client.
    ///
    /// # Errors
    /// There are too many.
    pub fn create(&self, id: String, create: Create) -> Result<Arc<Terminal>, PtyError> {
        let terminal = Arc::new(Terminal {
            id: id.clone(),
            journal: Arc::new(Journal::with_cap(self.store.clone(), REPLAY, Pace::TERMINAL)),
            closed: CancellationToken::new(),
            program: create.program,
            command: create.command,
            cwd: create.cwd,
            state: Mutex::new(State {
                process: None,
                client: None,
                watching: 0,
                size: create.size.unwrap_or(SIZE),
                used: Instant::now(),
                gone: false,
            }),
        });
        self.kept.insert(id, terminal.clone()).map_err(PtyError::TooMany)?;
        let (terminals, unused) = (self.clone(), Arc::downgrade(&terminal));
        tokio::spawn(async move {
            if let Some(terminal) = terminals.kept.unused(unused).await {
                let _ = terminals.delete(&terminal.id);
            }
        });
        Ok(terminal)
    }

    /// The terminal with this id.
    ///
    /// # Errors
    /// There is none.
    pub fn find(&self, id: &str) -> Result<Arc<Terminal>, PtyError> {
        self.kept.find(id).ok_or_else(|| PtyError::Unknown(id.to_owned()))
    }

    /// All terminals, by id.
    pub fn list(&self) -> Vec<Arc<Terminal>> {
        self.kept.list()
    }

    /// Ends one and what runs in it.
    ///
    /// # Errors
    /// There is none.
    pub fn delete(&self, id: &str) -> Result<(), PtyError> {
        let terminal = self.kept.remove(id).ok_or_else(|| PtyError::Unknown(id.to_owned()))?;
        let process = {
            let mut state = terminal.state.lock();
            state.gone = true;
            state.process.take()
        };
        if let Some(process) = process {
            process.kill();
        }
        terminal.closed.cancel();
        Ok(())
    }
}

/// A client's place at a terminal; given back when dropped.
pub struct Seat {
    terminal: Arc<Terminal>,
    /// Cancelled when another client takes the place; none for one that only watches.
    pub evicted: Option<CancellationToken>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.terminal.state.lock();
        state.used = Instant::now();
        match &self.evicted {
            None => state.watching = state.watching.saturating_sub(1),
            Some(token) if !token.is_cancelled() => state.client = None,
            Some(_) => {}
        }
    }
}

impl Terminal {
    /// Whether its process runs.
    pub fn running(&self) -> bool {
        self.state.lock().process.as_ref().is_some_and(|process| process.ended().is_none())
    }

    /// Whether a client types in it.
    pub fn taken(&self) -> bool {
        self.state.lock().client.is_some()
    }

    /// Takes the one place from which is typed, from another client if need be.
    ///
    /// # Errors
    /// Another has it, and `takeover` is not set.
    pub fn sit(self: &Arc<Self>, takeover: bool) -> Result<Seat, PtyError> {
        let mut state = self.state.lock();
        if let Some(other) = &state.client {
            if !takeover {
                return Err(PtyError::Connected);
            }
            other.cancel();
        }
        let token = CancellationToken::new();
        state.client = Some(token.clone());
        Ok(Seat { terminal: self.clone(), evicted: Some(token) })
    }

    /// Takes a place from which is only watched.
    pub fn watch(self: &Arc<Self>) -> Seat {
        self.state.lock().watching += 1;
        Seat { terminal: self.clone(), evicted: None }
    }

    /// The process, if one was ever started.
    pub fn process(&self) -> Option<Arc<Process>> {
        self.state.lock().process.clone()
    }

    /// The process; a new one if none runs.
    ///
    /// # Errors
    /// It can't be started, or the terminal is being deleted.
    pub fn start(&self, mode: Mode, env: Env) -> Result<Arc<Process>, PtyError> {
        let mut state = self.state.lock();
        if state.gone {
            return Err(PtyError::Unknown(self.id.clone()));
        }
        if let Some(process) = state.process.clone().filter(|process| process.ended().is_none()) {
            return Ok(process);
        }
        let mut env = env;
        env.entry("TERM".into()).or_insert_with(|| "xterm-256color".into());
        if !["LANG", "LC_ALL", "LC_CTYPE"].iter().any(|name| env.contains_key(std::ffi::OsStr::new(name))) {
            env.insert("LANG".into(), "C.UTF-8".into());
        }
        let mut argv = vec![self.program.path.clone()];
        if self.program.bash {
            argv.extend(["--norc".into(), "--noprofile".into()]);
        }
        if let Some(command) = &self.command {
            argv.extend(["-c".into(), command.into()]);
        }
        let start = Start { argv, env: &env, cwd: &self.cwd, mode, size: state.size };
        let process = Arc::new(Process::start(start, self.journal.clone())?);
        state.process = Some(process.clone());
        Ok(process)
    }

    /// Sets the window's size, also for a process that is started later.
    pub fn resize(&self, size: (u16, u16)) {
        let mut state = self.state.lock();
        state.size = size;
        if let Some(process) = &state.process {
            process.resize(size);
        }
    }
}
