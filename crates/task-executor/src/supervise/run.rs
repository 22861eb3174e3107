//! The supervisor's loop: output, signals, the deadline, the end.

use std::io::{self, PipeReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::output::{Output, drain};
use super::{Exit, Plan, STDERR, STDOUT, State, SuperviseError, now};
use crate::inject::{self, LaunchError};
use crate::proc::{self, ProcId};
use crate::sys;

/// Chunks one wake-up takes from a pipe, so that a loud task can't hold up its own deadline.
const ROUNDS: usize = 16;
/// Chunks that are taken from a pipe once the task has ended.
const LAST_ROUNDS: usize = 64;

/// How far the stopping of a task has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// Not asked for.
    No,
    /// Asked politely; at this moment it is over.
    Asked(Instant),
    /// Killed.
    Killed,
}

/// One stream of the task.
struct Stream {
    pipe: Option<PipeReader>,
    output: Output,
}

impl Stream {
    fn take(&mut self, rounds: usize) {
        let closed = self.pipe.as_mut().is_some_and(|pipe| drain(pipe, &mut self.output, rounds));
        if closed {
            self.pipe = None;
        }
    }
}

/// See the module.
pub struct Supervisor<'a> {
    dir: &'a Path,
    plan: Plan,
    state: State,
    signals: SignalFd,
    streams: [Stream; 2],
    deadline: Option<Instant>,
    timed_out: bool,
    stop: Stop,
}

/// A pipe whose reading end never blocks.
fn stream(path: &Path, limit: u64) -> io::Result<(Stream, OwnedFd)> {
    let (read, write) = io::pipe()?;
    fcntl(read.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((Stream { pipe: Some(read), output: Output::open(path, limit) }, write.into()))
}

impl<'a> Supervisor<'a> {
    /// Prepares everything and starts the task by the first way that is open.
    pub fn new(dir: &'a Path, plan: Plan, state: State) -> Result<Self, SuperviseError> {
        let mut mask = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD] {
            mask.add(signal);
        }
        mask.thread_block()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let (out, out_end) = stream(&dir.join(STDOUT), plan.output_limit)?;
        let (err, err_end) = stream(&dir.join(STDERR), plan.output_limit)?;
        let streams = [out, err];
        let (deadline, timed_out, stop) = (None, false, Stop::No);
        let mut supervisor = Self { dir, plan, state, signals, streams, deadline, timed_out, stop };
        supervisor.start(out_end, err_end)?;
        Ok(supervisor)
    }

    fn start(&mut self, stdout: OwnedFd, stderr: OwnedFd) -> Result<(), SuperviseError> {
        let into_container = matches!(self.plan.place, super::Where::Container(_));
        match self.plan.launch(stdout, stderr).and_then(|launch| self.try_ways(&launch, into_container)) {
            Ok(child) => {
                self.state.process = ProcId::of(child.as_raw());
                self.state.started_at = Some(now());
                self.deadline = self.plan.timeout_seconds.map(|s| Instant::now() + Duration::from_secs(s));
            }
            Err(LaunchError::Start { code, message }) => {
                self.state.exit = Some(Exit::not_started(code, message, now()));
            }
            Err(LaunchError::Unavailable(why)) => {
                self.state.exit = Some(Exit::not_started(126, why, now()));
            }
        }
        self.tell()
    }

    fn try_ways(&mut self, launch: &inject::Launch, into_container: bool) -> Result<Pid, LaunchError> {
        for way in inject::ways(into_container) {
            match way.launch(launch) {
                Ok(child) => {
                    self.state.injection = way.way();
                    return Ok(child);
                }
                Err(LaunchError::Unavailable(why)) => {
                    let name = way.way().and_then(|w| serde_json::to_value(w).ok());
                    let name = name.as_ref().and_then(|n| n.as_str()).unwrap_or("own container");
                    self.state.skipped.push(format!("{name}: {why}"));
                }
                Err(start) => {
                    self.state.injection = way.way();
                    return Err(start);
                }
            }
        }
        let why = self.state.skipped.join("; ");
        Err(LaunchError::Unavailable(format!("no way into the sandbox container is open ({why})")))
    }

    fn tell(&mut self) -> Result<(), SuperviseError> {
        self.state.write(self.dir)?;
        // A full pipe means that a reader has news waiting anyway.
        let _ = io::stderr().write(b".");
        Ok(())
    }

    /// Runs until the task and everything it started have ended.
    pub fn run(mut self) -> Result<(), SuperviseError> {
        while self.reap()? {
            self.wait()?;
            self.streams.iter_mut().for_each(|s| s.take(ROUNDS));
            while let Ok(Some(signal)) = self.signals.read_signal() {
                if i32::try_from(signal.ssi_signo) != Ok(libc::SIGCHLD) && self.stop == Stop::No {
                    self.ask_to_stop();
                }
            }
            self.keep_time();
        }
        self.streams.iter_mut().for_each(|s| s.take(LAST_ROUNDS));
        Ok(())
    }

    /// Collects what has ended; whether any child is left.
    fn reap(&mut self) -> Result<bool, SuperviseError> {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => return Ok(true),
                Ok(WaitStatus::Exited(pid, code)) => self.ended(pid, Some(code), None)?,
                Ok(WaitStatus::Signaled(pid, signal, _)) => self.ended(pid, None, Some(signal as i32))?,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::ECHILD) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn ended(&mut self, pid: Pid, code: Option<i32>, signal: Option<i32>) -> Result<(), SuperviseError> {
        if self.state.exit.is_some() || self.state.process.map(|p| p.pid) != Some(pid.as_raw()) {
            return Ok(());
        }
        self.streams.iter_mut().for_each(|s| s.take(LAST_ROUNDS));
        self.state.exit = Some(match self.plan.timeout_seconds {
            Some(seconds) if self.timed_out => Exit::timed_out(seconds, signal, now()),
            _ => Exit::of(code, signal, now()),
        });
        if !self.timed_out {
            self.deadline = None;
        }
        self.tell()
    }

    fn wait(&self) -> Result<(), SuperviseError> {
        let next = match self.stop {
            Stop::Asked(at) => Some(at),
            Stop::Killed => Some(Instant::now() + Duration::from_secs(1)),
            Stop::No => self.deadline,
        };
        let timeout = next.map_or(PollTimeout::NONE, |at| {
            let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        let pipes = self.streams.iter().filter_map(|s| s.pipe.as_ref());
        fds.extend(pipes.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn keep_time(&mut self) {
        let now = Instant::now();
        match self.stop {
            Stop::No if self.deadline.is_some_and(|at| now >= at) => {
                self.timed_out = true;
                self.ask_to_stop();
            }
            Stop::Asked(at) if now >= at => {
                self.stop = Stop::Killed;
                self.kill_all();
            }
            // What was born while it was being killed.
            Stop::Killed => self.kill_all(),
            _ => {}
        }
    }

    fn ask_to_stop(&mut self) {
        self.stop = Stop::Asked(Instant::now() + Duration::from_millis(self.plan.grace_ms));
        self.signal_all(libc::SIGTERM);
    }

    fn kill_all(&self) {
        self.signal_all(libc::SIGKILL);
    }

    /// The whole group, and every descendant that left it.
    fn signal_all(&self, signal: i32) {
        let group = self.state.process.map(|p| p.pid);
        if let Some(group) = group {
            let _ = sys::signal_group(group, signal);
        }
        for process in proc::descendants(self.state.supervisor.pid) {
            if proc::Stat::read(process.pid).is_some_and(|s| Some(s.group) == group) {
                continue;
            }
            signal_process(process, signal);
        }
    }
}

/// Signals one process, and never another that has its number now.
pub fn signal_process(process: ProcId, signal: i32) {
    if let Ok(fd) = sys::pidfd_open(process.pid)
        && process.exists()
    {
        let _ = sys::pidfd_signal(fd.as_fd(), signal);
    }
}
