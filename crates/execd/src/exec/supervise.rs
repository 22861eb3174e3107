//! The supervisor of one execution: reads, waits, stops, and publishes exactly one end.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use nix::fcntl::FcntlArg;
use nix::libc::{SIGKILL, SIGTERM};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Child, End, Outcome, Phase, Stop};
use crate::journal::{Journal, Source};
use crate::sys;

/// Bytes taken from a pipe at once.
const READ_SIZE: usize = 256 << 10;
/// What a pipe holds by default. One that is found full is made to hold `READ_SIZE`, so that a program that
/// writes much need not be woken for every piece.
const PIPE_SIZE: usize = 64 << 10;

thread_local! {
    /// Shared by all supervisors of the one runtime thread: an idle execution costs no buffer.
    static BUFFER: std::cell::RefCell<Vec<u8>> = std::cell::RefCell::new(vec![0; READ_SIZE]);
}

/// The read ends of an execution's pipes; each is closed when everybody who could write has gone.
pub struct Outputs {
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
    /// Full pipes are made wider: not tried again after the first.
    widened: bool,
}

impl Outputs {
    /// Standard output (or both), and standard error where it is apart.
    pub fn new(stdout: pipe::Receiver, stderr: Option<pipe::Receiver>) -> Self {
        Self { stdout: Some(stdout), stderr, widened: false }
    }

    /// Whether anybody may still write.
    pub fn open(&self) -> bool {
        self.stdout.is_some() || self.stderr.is_some()
    }

    /// Moves what one pipe has into the journal; waits until one has something. Cancel-safe.
    pub async fn pump(&mut self, journal: &Journal) {
        journal.paced().await;
        let source = tokio::select! {
            () = ready(self.stdout.as_ref()) => Source::Stdout,
            () = ready(self.stderr.as_ref()) => Source::Stderr,
        };
        self.take(source, journal, READ_SIZE);
    }

    /// One read of at most `max` bytes; how many there were.
    fn take(&mut self, source: Source, journal: &Journal, max: usize) -> usize {
        let slot = match source {
            Source::Stdout => &mut self.stdout,
            Source::Stderr => &mut self.stderr,
        };
        let Some(pipe) = slot.as_ref() else { return 0 };
        let read = BUFFER.with_borrow_mut(|buffer| {
            let room = max.min(buffer.len());
            let read = pipe.try_read(buffer.get_mut(..room).unwrap_or_default());
            if let Ok(count) = read {
                journal.append(source, buffer.get(..count).unwrap_or_default());
            }
            read
        });
        match read {
            Ok(count) if count > 0 => {
                if count >= PIPE_SIZE && !std::mem::replace(&mut self.widened, true) {
                    // The bound of all pipes of a user may be met; it goes on as it is then.
                    let _ = nix::fcntl::fcntl(pipe, FcntlArg::F_SETPIPE_SZ(READ_SIZE as i32));
                }
                count
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => 0,
            Ok(_) | Err(_) => {
                *slot = None;
                0
            }
        }
    }

    /// Moves exactly what the pipes hold now: all that an ended process wrote. Background children
    /// may keep the pipes open and go on writing; that comes later.
    ///
    /// The pipes are read themselves, whatever the runtime knows of them: it may not have heard yet.
    pub fn drain(&mut self, journal: &Journal) {
        for (source, pipe) in [(Source::Stdout, &self.stdout), (Source::Stderr, &self.stderr)] {
            let Some(pipe) = pipe else { continue };
            let mut left = sys::readable_bytes(pipe);
            while left > 0 {
                let count = BUFFER.with_borrow_mut(|buffer| {
                    let room = left.min(buffer.len());
                    let read = nix::unistd::read(pipe, buffer.get_mut(..room).unwrap_or_default());
                    let count = read.unwrap_or(0);
                    journal.append(source, buffer.get(..count).unwrap_or_default());
                    count
                });
                if count == 0 {
                    break;
                }
                left -= count;
            }
        }
    }
}

async fn ready(pipe: Option<&pipe::Receiver>) {
    match pipe {
        Some(pipe) if pipe.readable().await.is_ok() => {}
        _ => std::future::pending().await,
    }
}

/// What a supervisor has of its execution.
pub struct Supervised {
    /// Where output goes.
    pub journal: Arc<Journal>,
    /// Time after which the group is killed.
    pub timeout: Option<Duration>,
    /// When it was started.
    pub begun: Instant,
    /// Stops that are asked for.
    pub stops: mpsc::Receiver<Stop>,
    /// Where the end is published.
    pub phase: watch::Sender<Phase>,
}

/// Runs one execution to its end, then keeps its pipes empty for as long as anybody may write to them.
/// `judge` says whether such an end was for want of memory.
pub async fn supervise(
    mut child: Child,
    mut outputs: Outputs,
    run: Supervised,
    judge: &mut (dyn FnMut(&End) -> bool + Send),
    ended: impl FnOnce(&Outcome),
) {
    let Supervised { journal, timeout, begun, mut stops, phase } = run;
    let deadline = timeout.and_then(|t| begun.checked_add(t));
    let (mut timed_out, mut kill_at, mut killed) = (None, None, false);
    loop {
        tokio::select! {
            biased;
            exited = child.exited() => {
                if exited.is_ok() { break }
                std::future::pending::<()>().await;
            }
            () = at(deadline), if timed_out.is_none() => {
                timed_out = timeout;
                child.signal_group(SIGKILL);
            }
            () = at(kill_at), if !killed => {
                killed = true;
                child.signal_group(SIGKILL);
            }
            Some(stop) = stops.recv(), if kill_at.is_none() => {
                kill_at = Instant::now().checked_add(stop.grace);
                child.signal_group(SIGTERM);
            }
            () = outputs.pump(&journal), if outputs.open() => {}
        }
    }
    // Found before the leader is reaped: until then no other group can have its id.
    let left = if kill_at.is_some() { group_members(child.pid()) } else { Vec::new() };
    outputs.drain(&journal);
    let end = child.reap().map_or(End::Unknown, End::Ended);
    let outcome = Arc::new(Outcome {
        out_of_memory: judge(&end),
        end,
        timed_out,
        stopped: kill_at.is_some(),
        finished_at: Timestamp::now(),
        elapsed: begun.elapsed(),
        output_end: journal.end(),
    });
    ended(&outcome);
    settle(outcome, &phase, left, kill_at, outputs, &journal).await;
}

/// Publishes the end, ends what is left of a stopped group, and reads on until nobody can write any more.
pub async fn settle(
    outcome: Arc<Outcome>,
    phase: &watch::Sender<Phase>,
    left: Vec<OwnedFd>,
    kill_at: Option<Instant>,
    mut outputs: Outputs,
    journal: &Journal,
) {
    phase.send_replace(Phase::Ended(outcome.clone()));
    stop_rest(left, kill_at, &mut outputs, journal).await;
    phase.send_replace(Phase::Settled(outcome));
    while outputs.open() {
        outputs.pump(journal).await;
    }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}

/// Other processes of a stopped group get the rest of the grace, then KILL, each by its own pidfd.
async fn stop_rest(left: Vec<OwnedFd>, kill_at: Option<Instant>, outputs: &mut Outputs, journal: &Journal) {
    let Some(kill_at) = kill_at else { return };
    for pidfd in left {
        let Ok(pidfd) = sys::watch(pidfd) else { continue };
        let gone = async {
            loop {
                tokio::select! {
                    _ = pidfd.readable() => return,
                    () = outputs.pump(journal), if outputs.open() => {}
                }
            }
        };
        if timeout_at(kill_at, gone).await.is_err() {
            let _ = sys::pidfd_kill(pidfd.get_ref(), SIGKILL);
        }
    }
}

/// Descriptors of the processes in a group, without its leader.
fn group_members(group: i32) -> Vec<OwnedFd> {
    group_since(group, &Since::default())
}

/// A moment in the life of a group: which of its processes came before.
#[derive(Debug, Clone, Default)]
pub struct Since {
    ticks: u64,
    /// Those that started in the very tick, which is too coarse to tell.
    before: Vec<i32>,
}

impl Since {
    /// Now. `leader` leads the group, and is the parent of most others.
    pub fn now(leader: i32) -> Self {
        let ticks = sys::ticks();
        let children = std::fs::read_to_string(format!("/proc/{leader}/task/{leader}/children"));
        // Mostly there are none, and no process has to be looked at.
        let before = match children {
            Ok(text) => text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect(),
            Err(_) => members(leader).into_iter().map(|(pid, _)| pid).collect(),
        };
        Self { ticks, before }
    }

    fn holds(&self, pid: i32, start: u64) -> bool {
        start > self.ticks || (start == self.ticks && !self.before.contains(&pid))
    }
}

/// Living processes of a group without its leader, with their start.
pub(super) fn members(group: i32) -> Vec<(i32, u64)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let of_group = |pid| group_and_start(pid).filter(|(of, _)| *of == group).map(|(_, start)| (pid, start));
    pids.filter(|pid| *pid != group).filter_map(of_group).collect()
}

/// Descriptors of the processes in a group that were started since, without its leader.
pub fn group_since(group: i32, since: &Since) -> Vec<OwnedFd> {
    let young = members(group).into_iter().filter(|(pid, start)| since.holds(*pid, *start));
    young
        .filter_map(|(pid, _)| {
            let pidfd = sys::pidfd_open(pid).ok()?;
            // Asked again with the descriptor in hand: the number may have changed its owner meanwhile.
            (group_of(pid) == Some(group)).then_some(pidfd)
        })
        .collect()
}

fn group_of(pid: i32) -> Option<i32> {
    group_and_start(pid).map(|(group, _)| group)
}

/// Group of a living process, and its start in the kernel's ticks.
pub(super) fn group_and_start(pid: i32) -> Option<(i32, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    match fields.next()? {
        "Z" | "X" => None,
        // Parent, group; then the 22nd field of all.
        _ => Some((fields.nth(1)?.parse().ok()?, fields.nth(16)?.parse().ok()?)),
    }
}
