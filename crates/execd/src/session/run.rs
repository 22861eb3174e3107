//! One run in a session: supervised like any execution, but its process is the session's shell, which
//! stays.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use nix::libc::{SIGKILL, SIGTERM};
use tokio::time::{Instant, sleep_until};

use super::script::{self, Answer};
use super::shell::Shell;
use crate::exec::{Conductor, End, Engine, Outcome, Outputs, Since, group_since, looks_killed, settle};
use crate::sys::{self, ExitStatus};

/// Exported variables that are kept for the next shell.
const EXPORTS_CAP: usize = 1 << 20;

/// What a run needs.
pub struct Run {
    /// The command.
    pub command: String,
    /// What is said to the shell before it.
    pub before: Vec<u8>,
    /// Time after which it is killed.
    pub timeout: Option<Duration>,
}

/// What a run left.
pub struct Left {
    /// The shell, if it still lives.
    pub shell: Option<Shell>,
    /// The variables that it exported at the end.
    pub exports: Option<Vec<u8>>,
}

/// The pipes of one run: ours to read, and what the shell opens.
pub struct Pipes {
    outputs: Outputs,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Pipes {
    /// Makes them.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new() -> std::io::Result<Self> {
        let (out_read, stdout) = crate::exec::pipe()?;
        let (err_read, stderr) = crate::exec::pipe()?;
        Ok(Self { outputs: Outputs::new(out_read, Some(err_read)), stdout, stderr })
    }
}

/// Carries a run out. `done` gets what it left before its end is told; output that comes later is still
/// read.
pub async fn carry_out(
    mut shell: Shell,
    pipes: Pipes,
    run: Run,
    conductor: Conductor,
    engine: Engine,
    done: impl FnOnce(Left),
) {
    let Conductor { execution, phase, mut stops } = conductor;
    let journal = execution.journal.clone();
    let Pipes { mut outputs, stdout, stderr } = pipes;
    let (begun, oom) = (Instant::now(), engine.oom_kills());
    let since = Since::now(shell.child.pid());
    let mark = uuid::Uuid::new_v4().simple().to_string();
    let deadline = run.timeout.and_then(|t| begun.checked_add(t));
    let (mut timed_out, mut kill_at, mut killed) = (None, None, false);
    let mut words = run.before;
    words.extend_from_slice(&script::run(
        &run.command,
        stdout.as_raw_fd(),
        stderr.as_raw_fd(),
        shell.answer_descriptor(),
        &mark,
    ));
    let group = shell.child.pid();
    let mut heard = Vec::new();
    let mut told = 0;
    let answer: Option<Answer> = loop {
        let rest = words.get(told..).unwrap_or_default();
        tokio::select! {
            biased;
            exited = shell.child.exited() => {
                if exited.is_ok() { break None }
                std::future::pending::<()>().await;
            }
            () = at(deadline), if timed_out.is_none() => {
                timed_out = run.timeout;
                signal(&shell, &since, SIGKILL);
            }
            () = at(kill_at), if !killed => {
                killed = true;
                signal(&shell, &since, SIGKILL);
            }
            Some(stop) = stops.recv(), if kill_at.is_none() => {
                kill_at = Instant::now().checked_add(stop.grace);
                signal(&shell, &since, SIGTERM);
            }
            written = shell.write_some(rest), if !rest.is_empty() => told += written,
            bytes = shell.hear() => {
                heard.extend_from_slice(&bytes);
                if let Some(answer) = script::answer(&heard, &mark) { break Some(answer) }
                // Too much to keep: only where it begins and ends matters.
                if heard.len() > 4 * EXPORTS_CAP { heard.drain(2 * EXPORTS_CAP..3 * EXPORTS_CAP); }
            }
            () = outputs.pump(&journal), if outputs.open() => {}
        }
    };
    // From here on only what the run left behind can write.
    drop((stdout, stderr));
    outputs.drain(&journal);
    let left = if kill_at.is_some() && answer.is_none() { group_since(group, &since) } else { Vec::new() };
    let (end, left_behind) = match answer {
        Some(Answer { status, exports }) => {
            // 128 + N is how a shell tells that a signal ended what it ran.
            let exports = (exports.len() <= EXPORTS_CAP).then_some(exports);
            (End::Ended(ExitStatus::Code(status)), Left { shell: Some(shell), exports })
        }
        None => {
            let end = shell.child.reap().map_or(End::Unknown, End::Ended);
            (end, Left { shell: None, exports: None })
        }
    };
    let outcome = Arc::new(Outcome {
        out_of_memory: looks_killed(&end) && engine.oom_kills() > oom,
        end,
        timed_out,
        stopped: kill_at.is_some(),
        finished_at: Timestamp::now(),
        elapsed: begun.elapsed(),
        output_end: journal.end(),
    });
    done(left_behind);
    engine.note_end(&execution, &outcome);
    settle(outcome, &phase, left, kill_at, outputs, &journal).await;
}

/// Signals the shell and what it started in this run; its older background jobs are left alone.
fn signal(shell: &Shell, since: &Since, signal: i32) {
    for pidfd in group_since(shell.child.pid(), since) {
        let _ = sys::pidfd_kill(&pidfd, signal);
    }
    let _ = shell.child.signal(signal);
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}
