//! The supervisor of one task: parent of its process, keeper of its output and of its exit code.
//!
//! It is this binary re-executed, one thread, in its own session, so that it outlives the executor.
//! The executor hands it a plan on standard input, a locked file on standard output and a named pipe on
//! standard error: the lock is held for as long as the supervisor lives, and the pipe tells of changes.

mod output;
mod plan;
mod run;
mod state;

use std::io::Read;
use std::path::Path;

use jiff::Timestamp;
use nix::sys::prctl;
use nix::unistd::setsid;

pub use output::tail;
pub use plan::{Plan, Where};
pub use run::signal_process;
pub use state::{Exit, State};

use crate::proc::{self, ProcId};

/// First argument that makes this binary a supervisor.
pub const ARGUMENT: &str = "__supervise";
/// File of standard output.
pub const STDOUT: &str = "stdout.log";
/// File of standard error.
pub const STDERR: &str = "stderr.log";
/// Named pipe on which a byte says that the state has changed, and its end that the supervisor is gone.
pub const EVENTS: &str = "events";
/// File whose lock the supervisor holds.
pub const LOCK: &str = "lock";

/// Why a supervisor gave up before it could write a state.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// The plan is missing or cut off.
    #[error("the plan can't be read: {0}")]
    Plan(#[from] serde_json::Error),
    /// A file of the task's directory can't be used.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A system call failed.
    #[error("{0}")]
    System(#[from] nix::errno::Errno),
}

/// Runs the task in `dir` to its end.
pub fn main(dir: &Path) -> Result<(), SuperviseError> {
    let mut text = Vec::new();
    std::io::stdin().lock().read_to_end(&mut text)?;
    let plan: Plan = serde_json::from_slice(&text)?;
    // The executor may be the leader of a group that a terminal signals; a supervisor must outlive it.
    let _ = setsid();
    prctl::set_child_subreaper(true)?;
    // Nothing of the sandbox may look into this process while it has more privilege than the sandbox.
    prctl::set_dumpable(false)?;
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let state = State {
        boot: proc::boot_id(),
        supervisor: ProcId::of(own).unwrap_or(ProcId { pid: own, start: 0 }),
        process: None,
        injection: None,
        skipped: Vec::new(),
        started_at: None,
        exit: None,
    };
    state.write(dir)?;
    run::Supervisor::new(dir, plan, state)?.run()
}

/// Now, to the millisecond.
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}
