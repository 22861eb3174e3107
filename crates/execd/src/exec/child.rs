//! One child process: its end by pidfd, and who may take its exit status.
//!
//! As PID 1 the daemon inherits every orphan and must take their statuses too. Taking "any child"
//! would steal those of executions, so the orphan reaper looks first and hands what it finds of
//! ours to whom it belongs.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;

use parking_lot::Mutex;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};

use super::ledger;
use crate::sys::{self, ExitStatus, Spawned};

/// Statuses that the orphan reaper met before their owners did; `None` while the child lives.
static OWNED: Mutex<Option<HashMap<i32, Option<ExitStatus>>>> = Mutex::new(None);

/// A child process whose exit status is ours to take.
pub struct Child {
    pid: i32,
    pidfd: AsyncFd<OwnedFd>,
    reaped: bool,
}

impl Child {
    /// Takes charge of a process that was just started. Called before the runtime's next turn, so
    /// that the orphan reaper can't come first. It is noted, so that it does not outlive the daemon for long.
    ///
    /// # Errors
    /// The descriptor can't be registered; the process is ended then.
    pub fn new(spawned: Spawned) -> io::Result<Self> {
        let child = Self::lasting(spawned)?;
        ledger::note(child.pid);
        Ok(child)
    }

    /// As [`Self::new`], for a process that may outlive the daemon.
    ///
    /// # Errors
    /// See there.
    pub fn lasting(spawned: Spawned) -> io::Result<Self> {
        let pid = spawned.pid;
        match sys::watch(spawned.pidfd) {
            Ok(pidfd) => {
                OWNED.lock().get_or_insert_default().insert(pid, None);
                Ok(Self { pid, pidfd, reaped: false })
            }
            Err(error) => {
                sys::undo(pid);
                Err(error)
            }
        }
    }

    /// Process id, and id of its group.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Completes when the process has ended; its id stays taken until [`Self::reap`].
    ///
    /// # Errors
    /// The reactor is gone.
    pub async fn exited(&self) -> io::Result<()> {
        // Never cleared: an ended process stays readable.
        self.pidfd.readable().await.map(|mut guard| guard.retain_ready())
    }

    /// Takes the exit status; call after [`Self::exited`].
    pub fn reap(&mut self) -> Option<ExitStatus> {
        self.reaped = true;
        ledger::forget(self.pid);
        let status = sys::reap(self.pidfd.get_ref()).ok().flatten();
        let stolen = OWNED.lock().as_mut().and_then(|owned| owned.remove(&self.pid)).flatten();
        status.or(stolen)
    }

    /// Signals the process alone.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        sys::pidfd_kill(self.pidfd.get_ref(), signal)
    }

    /// Signals the process group. Safe only while the process has not been reaped, for its id can't
    /// be given to another group before.
    pub fn signal_group(&self, signal: i32) {
        if !self.reaped {
            // A group that has vanished needs no signal.
            let _ = sys::kill_group(self.pid, signal);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped
            && let Some(owned) = OWNED.lock().as_mut()
        {
            owned.remove(&self.pid);
        }
    }
}

/// Takes the statuses of processes whose parents have died, for as long as the daemon runs. Needed
/// only where they become our children: as PID 1.
///
/// # Errors
/// SIGCHLD can't be listened to.
pub fn adopt_orphans() -> io::Result<()> {
    let mut changed = signal(SignalKind::child())?;
    tokio::spawn(async move {
        while changed.recv().await.is_some() {
            while let Ok(Some(pid)) = sys::peek_any() {
                let Ok(status) = sys::reap_pid(pid) else { break };
                if let Some(entry) = OWNED.lock().as_mut().and_then(|owned| owned.get_mut(&pid)) {
                    *entry = status;
                }
            }
        }
    });
    Ok(())
}
