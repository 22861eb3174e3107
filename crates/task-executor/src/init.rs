//! What the process owes its container before it serves.

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use tokio::signal::unix::{SignalKind, signal};

/// Closes the process to the sandbox's eyes; as PID 1 of its container it also collects orphans.
pub fn prepare() -> std::io::Result<()> {
    prctl::set_dumpable(false)?;
    if std::process::id() != 1 {
        return Ok(());
    }
    let mut children = signal(SignalKind::child())?;
    tokio::spawn(async move {
        while children.recv().await.is_some() {
            while !matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD))
            {
            }
        }
    });
    Ok(())
}
