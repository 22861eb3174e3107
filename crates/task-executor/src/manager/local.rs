//! Starting and following a supervisor of ours.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::Instant;

use super::{Manager, stopped};
use crate::error::ApiError;
use crate::supervise::{ARGUMENT, EVENTS, Exit, LOCK, Plan, State, now, signal_process};
use crate::{proc, store, sys};

/// Time a supervisor has beyond the grace of its task, before it is killed itself.
const BEYOND_GRACE: Duration = Duration::from_secs(5);
/// Longest time until a supervisor has started its task or said why not.
const START: Duration = Duration::from_secs(22);

/// A supervisor, and the pipe on which it tells of changes.
pub struct Supervised {
    events: pipe::Receiver,
    child: Option<Child>,
}

impl Supervised {
    /// A supervisor of an earlier run; `None` when it lives no more.
    pub fn reattach(dir: &Path) -> io::Result<Option<Self>> {
        // The reader must be there before the lock is looked at, so that an end after the look is heard.
        let events = pipe::OpenOptions::new().open_receiver(dir.join(EVENTS))?;
        let lock = OpenOptions::new().write(true).open(dir.join(LOCK))?;
        let alive = lock.try_lock().is_err();
        Ok(alive.then_some(Self { events, child: None }))
    }

    /// Waits for a change; whether the supervisor still lives.
    async fn changed(&mut self) -> bool {
        let mut bytes = [0; 64];
        matches!(self.events.read(&mut bytes).await, Ok(n) if n > 0)
    }

    /// Collects the ended supervisor.
    async fn reap(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = tokio::task::spawn_blocking(move || child.wait()).await;
        }
    }
}

fn spawn(dir: &Path, plan: &Plan) -> io::Result<Supervised> {
    store::private_dir(dir)?;
    match mkfifo(&dir.join(EVENTS), Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let events = pipe::OpenOptions::new().open_receiver(dir.join(EVENTS))?;
    let tell = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(dir.join(EVENTS))?;
    let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(dir.join(LOCK))?;
    lock.try_lock().map_err(io::Error::from)?;
    let mut text = File::from(memfd_create("plan", MFdFlags::MFD_CLOEXEC)?);
    text.write_all(&serde_json::to_vec(plan)?)?;
    text.seek(SeekFrom::Start(0))?;
    let child = Command::new("/proc/self/exe")
        .arg(ARGUMENT)
        .arg(dir)
        .current_dir("/")
        .stdin(Stdio::from(text))
        .stdout(Stdio::from(lock))
        .stderr(Stdio::from(tell))
        .spawn()?;
    Ok(Supervised { events, child: Some(child) })
}

/// Starts a supervisor and waits until the task runs or could not be started.
pub async fn start(manager: &Arc<Manager>, key: &str, plan: Plan) -> Result<Supervised, ApiError> {
    let dir = manager.store.task_dir(key);
    let mut supervised = spawn(&dir, &plan).map_err(|e| ApiError::storage(&e))?;
    let deadline = Instant::now() + START;
    loop {
        let alive = tokio::time::timeout_at(deadline, supervised.changed()).await;
        let state = State::read(&dir);
        match (&state, alive) {
            (Some(state), _) if state.started_at.is_some() || state.exit.is_some() => {
                for why in &state.skipped {
                    tracing::info!(task = key, why, "a way into the sandbox container is not open");
                }
                manager.set_status(key, state.status());
                return Ok(supervised);
            }
            (_, Ok(true)) => {}
            // Nothing was started that outlives it: until a state says so, the task dies with it.
            (_, Ok(false)) => {
                supervised.reap().await;
                return Err(ApiError::internal("the task's supervisor ended before the start"));
            }
            (_, Err(_)) => {
                if let Some(child) = &mut supervised.child {
                    let _ = child.kill();
                }
                supervised.reap().await;
                return Err(ApiError::internal("the task's supervisor did not start it in time"));
            }
        }
    }
}

/// Until the supervisor is gone: the task has ended and so has everything it started, or it was stopped.
pub async fn follow(manager: &Manager, key: &str, mut supervised: Supervised) {
    let dir = manager.store.task_dir(key);
    let Some(mut stop) = manager.stop_of(key) else { return };
    let mut asked: Option<Instant> = None;
    loop {
        let state = State::read(&dir);
        if let Some(state) = &state {
            manager.set_status(key, state.status());
        }
        tokio::select! {
            alive = supervised.changed() => if !alive { break },
            () = stopped(&mut stop), if asked.is_none() => {
                // A state comes within moments of the start; a supervisor without one gets its signal then.
                if let Some(state) = &state {
                    signal_process(state.supervisor, libc::SIGTERM);
                    asked = Some(Instant::now() + Duration::from_secs(manager.settings.grace) + BEYOND_GRACE);
                } else if !supervised.changed().await {
                    break;
                }
            }
            () = tokio::time::sleep_until(asked.unwrap_or_else(Instant::now)), if asked.is_some() => {
                if let Some(state) = &state {
                    tracing::warn!(task = key, "the task's supervisor does not end; it is killed");
                    kill_group(state);
                    signal_process(state.supervisor, libc::SIGKILL);
                }
                asked = Some(Instant::now() + BEYOND_GRACE);
            }
        }
    }
    supervised.reap().await;
    if let Some(state) = closed(&dir) {
        manager.set_status(key, state.status());
    }
}

/// The final state of a task whose supervisor is gone. If that saw no end, the end is made and noted.
pub fn closed(dir: &Path) -> Option<State> {
    let mut state = State::read(dir)?;
    if state.exit.is_none() {
        kill_group(&state);
        state.exit = Some(Exit::unseen("the task's supervisor was killed, so its end was not seen", now()));
        if let Err(error) = state.write(dir) {
            tracing::warn!(%error, "the task's end is not on disk");
        }
    }
    Some(state)
}

/// Kills the group of a task, if its leader is the one that was started.
fn kill_group(state: &State) {
    if let Some(process) = state.process
        && state.boot == proc::boot_id()
        && process.exists()
    {
        let _ = sys::signal_group(process.pid, libc::SIGKILL);
        signal_process(process, libc::SIGKILL);
    }
}
