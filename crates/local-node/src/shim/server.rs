//! The shim's loop: one thread, one poll, everything that may happen to the pod's processes.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::connection::Connection;
use super::container::{self, Places};
use super::journal::{self, Journal};
use super::log::{LogWriter, Stream};
use super::proto::{
    ExecProcess, FailureKind, Outcome, PodState, Reply, Request, Run, SHIM_LOG_FILE, SOCKET_FILE, Sandbox,
    StartContainer,
};
use crate::cgroup::{Hierarchies, OomWatch};

/// Most connections at once; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 128;
/// Longest wait for killed processes to go.
const KILL_PATIENCE: Duration = Duration::from_secs(5);
/// Longest termination message that is kept, as in Kubernetes.
const MAX_MESSAGE: u64 = 4096;

/// A running container.
struct Live {
    name: String,
    attempt: u32,
    id: String,
    pid: Pid,
    group: String,
    outputs: [Option<OwnedFd>; 2],
    /// Held so that the standard input does not end.
    _stdin: Option<OwnedFd>,
    log: LogWriter,
    oom: Option<OomWatch>,
    oom_seen: bool,
    termination_message: Option<PathBuf>,
    message_from_log: bool,
    seccomp: bool,
}

/// The shim of one pod.
pub struct Server {
    dir: PathBuf,
    log: PathBuf,
    sandbox: Sandbox,
    groups: Hierarchies,
    journal: Journal,
    state: PodState,
    live: Vec<Live>,
    listener: UnixListener,
    signals: SignalFd,
    connections: Vec<Connection>,
    serial: u64,
    changed: bool,
    /// Volumes in memory that are mounted.
    volumes: BTreeSet<PathBuf>,
    /// The pod's directory: while it is open, SIGIO tells when somebody else empties it.
    _place: fs::File,
}

/// What a descriptor in the poll set belongs to.
enum Source {
    Listener,
    Signals,
    Connection(usize),
    Output(usize, Stream),
    Oom(usize),
}

impl Server {
    /// A shim that has made its sandbox.
    pub fn new(
        dir: &Path,
        sandbox: Sandbox,
        groups: Hierarchies,
        listener: UnixListener,
        pause: Option<Pid>,
    ) -> io::Result<Self> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.add(Signal::SIGTERM);
        mask.add(Signal::SIGIO);
        mask.thread_block()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        listener.set_nonblocking(true)?;
        let place = fs::File::open(dir)?;
        crate::sys::notify_of_removals(&place)?;
        Ok(Self {
            dir: dir.to_owned(),
            log: dir.join(SHIM_LOG_FILE),
            sandbox,
            groups,
            journal: Journal::open(dir)?,
            state: PodState {
                shim_pid: nix::unistd::getpid().as_raw(),
                pause_pid: pause.map(Pid::as_raw),
                ..PodState::default()
            },
            live: Vec::new(),
            listener,
            signals,
            connections: Vec::new(),
            serial: 0,
            changed: false,
            volumes: BTreeSet::new(),
            _place: place,
        })
    }

    /// Serves until the pod is shut down.
    pub fn run(mut self) -> io::Result<()> {
        loop {
            let ready = self.wait()?;
            let mut requests = Vec::new();
            let mut terminated = false;
            for source in ready {
                match source {
                    Source::Listener => self.accept(),
                    Source::Signals => terminated |= self.take_signals(),
                    Source::Connection(index) => {
                        requests.extend(self.connections[index].exchange().into_iter().map(|request| (index, request)));
                    }
                    Source::Output(index, stream) => self.live[index].copy_output(stream),
                    Source::Oom(index) => self.out_of_memory(index),
                }
            }
            // Only now: requests may add to and take from what the poll set was made of.
            for (index, request) in requests {
                if let Request::Shutdown = request {
                    self.shut_down();
                    self.connections[index].answer(&Reply::Done, &[]);
                    self.connections[index].flush_blocking();
                    return Ok(());
                }
                self.serve(index, request);
            }
            if terminated {
                self.shut_down();
                return Ok(());
            }
            self.reap();
            self.tell();
            self.drop_closed();
        }
    }

    fn wait(&self) -> io::Result<Vec<Source>> {
        let mut sources = vec![Source::Signals];
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if self.connections.len() < MAX_CONNECTIONS {
            sources.push(Source::Listener);
            fds.push(PollFd::new(self.listener.as_fd(), PollFlags::POLLIN));
        }
        for (index, connection) in self.connections.iter().enumerate() {
            sources.push(Source::Connection(index));
            fds.push(PollFd::new(connection.stream().as_fd(), connection.interest()));
        }
        for (index, live) in self.live.iter().enumerate() {
            for stream in [Stream::Stdout, Stream::Stderr] {
                if let Some(fd) = &live.outputs[stream as usize] {
                    sources.push(Source::Output(index, stream));
                    fds.push(PollFd::new(fd.as_fd(), PollFlags::POLLIN));
                }
            }
            if let (Some(watch), false) = (&live.oom, live.oom_seen) {
                sources.push(Source::Oom(index));
                fds.push(PollFd::new(watch.as_fd(), PollFlags::POLLIN));
            }
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let hit: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        Ok(sources.into_iter().zip(hit).filter(|(_, hit)| *hit).map(|(source, _)| source).collect())
    }

    fn accept(&mut self) {
        while self.connections.len() < MAX_CONNECTIONS {
            match self.listener.accept() {
                Ok((stream, _)) => self.add_connection(stream),
                Err(_) => break,
            }
        }
    }

    fn add_connection(&mut self, stream: UnixStream) {
        // The socket's directory is root's alone; this is the second lock.
        let trusted = nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::PeerCredentials)
            .is_ok_and(|peer| peer.uid() == nix::unistd::geteuid().as_raw());
        if trusted && stream.set_nonblocking(true).is_ok() {
            self.connections.push(Connection::new(stream));
        }
    }

    /// Empties the signal queue; true when the shim itself is to end.
    fn take_signals(&self) -> bool {
        let mut terminated = false;
        while let Ok(Some(signal)) = self.signals.read_signal() {
            terminated |= signal.ssi_signo == Signal::SIGTERM as u32;
            terminated |= signal.ssi_signo == Signal::SIGIO as u32 && self.homeless();
        }
        terminated
    }

    /// Whether the socket has been removed: nobody can ever reach this shim again, and nobody would end the pod.
    fn homeless(&self) -> bool {
        !self.dir.join(SOCKET_FILE).exists()
    }

    fn serve(&mut self, index: usize, request: Request) {
        let reply = match request {
            Request::State => Reply::State(self.state.clone()),
            Request::Watch => {
                self.connections[index].watch();
                Reply::State(self.state.clone())
            }
            Request::Start(request) => self.start(*request),
            Request::Signal { container, signal } => self.signal(&container, signal),
            Request::Kill { container } => self.kill(&container),
            Request::Reset => self.reset(),
            Request::Exec(process) => {
                self.exec(index, process);
                return;
            }
            Request::Shutdown => return,
        };
        self.connections[index].answer(&reply, &[]);
    }

    fn places(&self) -> Places<'_> {
        Places { dir: &self.dir, log: &self.log }
    }

    fn group(&self, container: &str) -> String {
        format!("{}/{container}", self.sandbox.cgroup)
    }

    fn start(&mut self, request: StartContainer) -> Reply {
        if self.live.iter().any(|live| live.name == request.name) {
            return failed(FailureKind::Invalid, format!("container {} runs already", request.name));
        }
        let group = self.group(&request.name);
        let log = match LogWriter::create(request.log.clone()) {
            Ok(log) => log,
            Err(error) => return failed(FailureKind::Create, format!("cannot create the log: {error}")),
        };
        if let Err(error) = self.mount_volumes(&request) {
            return failed(FailureKind::Create, format!("cannot mount a volume in memory: {error}"));
        }
        let mut user = None;
        let started = container::start(&self.places(), &self.groups, &request, &mut user);
        let mut run = Run {
            attempt: request.attempt,
            id: request.id.clone(),
            pid: 0,
            started_at: Timestamp::now(),
            image: request.image.clone(),
            user,
            outcome: None,
        };
        match started {
            Ok(started) => {
                run.pid = started.pid.as_raw();
                self.record_start(&request.name, run);
                self.live.push(Live {
                    name: request.name,
                    attempt: request.attempt,
                    id: request.id,
                    pid: started.pid,
                    group,
                    outputs: [Some(started.stdout), started.stderr],
                    _stdin: started.stdin,
                    log,
                    oom: started.oom,
                    oom_seen: false,
                    termination_message: request.termination_message,
                    message_from_log: request.message_from_log,
                    seccomp: request.seccomp,
                });
                Reply::Done
            }
            Err(failure) => {
                self.groups.kill(&group, KILL_PATIENCE);
                container::forget(&self.places(), &self.groups, &request.name, &request.id, &group);
                if failure.kind == FailureKind::Start {
                    // A program that cannot run counts as a run that ended at once.
                    let outcome = Outcome {
                        exit_code: 128,
                        start_failed: true,
                        message: failure.message.clone(),
                        ..Outcome::at(run.started_at)
                    };
                    let _ = self.journal.started(&request.name, &run);
                    let _ = self.journal.ended(&request.name, run.attempt, &outcome);
                    run.outcome = Some(outcome);
                    journal::remember(&mut self.state, &request.name, run);
                    self.changed = true;
                }
                failed(failure.kind, failure.message)
            }
        }
    }

    fn mount_volumes(&mut self, request: &StartContainer) -> io::Result<()> {
        for volume in &request.tmpfs {
            if !self.volumes.contains(&volume.path) {
                container::mount_tmpfs(volume)?;
                self.volumes.insert(volume.path.clone());
            }
        }
        Ok(())
    }

    fn record_start(&mut self, name: &str, run: Run) {
        if let Err(error) = self.journal.started(name, &run) {
            complain(&format!("journal: {error}"));
        }
        journal::remember(&mut self.state, name, run);
        self.changed = true;
    }

    fn signal(&self, container: &str, signal: i32) -> Reply {
        let Some(live) = self.live.iter().find(|live| live.name == container) else {
            return failed(FailureKind::NotRunning, format!("container {container} does not run"));
        };
        match Signal::try_from(signal).and_then(|signal| nix::sys::signal::kill(live.pid, signal)) {
            Ok(()) | Err(Errno::ESRCH) => Reply::Done,
            Err(errno) => failed(FailureKind::Invalid, errno.to_string()),
        }
    }

    fn kill(&self, container: &str) -> Reply {
        if let Some(live) = self.live.iter().find(|live| live.name == container) {
            let _ = nix::sys::signal::kill(live.pid, Signal::SIGKILL);
            self.groups.kill(&live.group, Duration::ZERO);
        }
        Reply::Done
    }

    fn reset(&mut self) -> Reply {
        let outcome =
            Outcome { exit_code: 128 + Signal::SIGKILL as i32, removed: true, ..Outcome::at(Timestamp::now()) };
        for (name, runs) in &mut self.state.containers {
            if let Some(run) = runs.last_mut().filter(|run| !run.running()) {
                if let Err(error) = self.journal.ended(name, run.attempt, &outcome) {
                    complain(&format!("journal: {error}"));
                }
                run.outcome = Some(outcome.clone());
            }
        }
        self.changed = true;
        Reply::Done
    }

    fn exec(&mut self, index: usize, process: ExecProcess) {
        self.serial += 1;
        let stdio = self.connections[index].take_fds();
        let reply = match self.start_exec(process, stdio) {
            Ok(command) => {
                let reply = Reply::Running { pid: command.pid.as_raw() };
                self.connections[index].runs(command.pid, command.terminal.is_some());
                self.connections[index].answer(&reply, command.terminal.as_slice());
                return;
            }
            Err(failure) => failed(failure.kind, failure.message),
        };
        self.connections[index].answer(&reply, &[]);
    }

    fn start_exec(&self, process: ExecProcess, stdio: Vec<OwnedFd>) -> Result<container::Command, container::Failure> {
        let invalid = |message: String| container::Failure { kind: FailureKind::Invalid, message };
        let live = self.live.iter().find(|live| live.name == process.container).ok_or_else(|| container::Failure {
            kind: FailureKind::NotRunning,
            message: format!("container {} does not run", process.container),
        })?;
        let stdio = match (process.tty, <[OwnedFd; 3]>::try_from(stdio)) {
            (true, _) => None,
            (false, Ok(stdio)) => Some(stdio),
            (false, Err(_)) => return Err(invalid("a command without a terminal needs three descriptors".to_owned())),
        };
        if process.command.is_empty() {
            return Err(invalid("no command".to_owned()));
        }
        container::exec(&self.places(), &live.name, &live.id, process.command, stdio, live.seccomp, self.serial)
    }

    fn out_of_memory(&mut self, index: usize) {
        let live = &mut self.live[index];
        if live.oom.as_ref().is_some_and(OomWatch::fired) {
            live.oom_seen = true;
            let (pid, group) = (live.pid, live.group.clone());
            // Kubernetes ends a container as a whole; version 1 of the kernel's interface ended one process of it.
            let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
            self.groups.kill(&group, Duration::ZERO);
        }
    }

    fn reap(&mut self) {
        loop {
            match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => self.ended(pid, code, None),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    self.ended(pid, 128 + signal as i32, Some(signal as i32));
                }
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(_) => {}
            }
        }
    }

    fn ended(&mut self, pid: Pid, code: i32, signal: Option<i32>) {
        if let Some(connection) = self.connections.iter_mut().find(|c| c.command() == Some(pid)) {
            connection.command_ended();
            connection.answer(&Reply::Exited { code }, &[]);
            return;
        }
        let Some(index) = self.live.iter().position(|live| live.pid == pid) else { return };
        let mut live = self.live.remove(index);
        let now = Timestamp::now();
        self.groups.kill(&live.group, KILL_PATIENCE);
        for stream in [Stream::Stdout, Stream::Stderr] {
            live.copy_output(stream);
        }
        live.log.finish(now);
        let oom_killed = live.oom_seen || self.groups.oom_killed(&live.group);
        let outcome = Outcome { exit_code: code, signal, oom_killed, message: live.message(code), ..Outcome::at(now) };
        if let Err(error) = self.journal.ended(&live.name, live.attempt, &outcome) {
            complain(&format!("journal: {error}"));
        }
        if let Some(run) = self
            .state
            .containers
            .get_mut(&live.name)
            .and_then(|runs| runs.iter_mut().find(|run| run.attempt == live.attempt))
        {
            run.outcome = Some(outcome);
        }
        self.changed = true;
        container::forget(&self.places(), &self.groups, &live.name, &live.id, &live.group);
    }

    fn tell(&mut self) {
        if std::mem::take(&mut self.changed) {
            let state = Reply::State(self.state.clone());
            for connection in self.connections.iter_mut().filter(|connection| connection.watches()) {
                connection.answer(&state, &[]);
            }
        }
        for connection in &mut self.connections {
            connection.flush();
        }
    }

    fn drop_closed(&mut self) {
        self.connections.retain(|connection| !connection.closed());
    }

    fn shut_down(&mut self) {
        let groups: Vec<_> = self.live.iter().map(|live| self.group(&live.name)).collect();
        for group in &groups {
            self.groups.kill(group, KILL_PATIENCE);
        }
        // We are the parent of the containers' first processes: until they are collected, the pause process
        // whose namespace they are in cannot end.
        self.reap();
        if let Some(pause) = self.state.pause_pid {
            let _ = nix::sys::signal::kill(Pid::from_raw(pause), Signal::SIGKILL);
        }
        self.groups.kill(&self.sandbox.cgroup, KILL_PATIENCE);
        self.reap();
        self.groups.remove(&self.sandbox.cgroup);
    }
}

impl Live {
    /// Copies what the container has written; closes an output that has ended.
    fn copy_output(&mut self, stream: Stream) {
        let mut buffer = [0u8; 16 * 1024];
        // A container that writes without pause must not keep the loop for itself.
        for _ in 0..64 {
            let Some(fd) = &self.outputs[stream as usize] else { return };
            match nix::unistd::read(fd, &mut buffer) {
                Ok(0) => self.outputs[stream as usize] = None,
                Ok(count) => self.log.write(stream, &buffer[..count], Timestamp::now()),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Err(_) => self.outputs[stream as usize] = None,
            }
        }
    }

    fn message(&self, code: i32) -> String {
        let mut bytes = Vec::new();
        if let Some(path) = &self.termination_message
            && let Ok(file) = fs::File::open(path)
        {
            // Of a long message the end is kept, as of a log.
            let mut file = file;
            let length = file.metadata().map_or(0, |metadata| metadata.len());
            let _ = io::Seek::seek(&mut file, io::SeekFrom::Start(length.saturating_sub(MAX_MESSAGE)));
            let _ = io::Read::read_to_end(&mut io::Read::take(file, MAX_MESSAGE), &mut bytes);
        }
        if bytes.is_empty() && self.message_from_log && code != 0 {
            return self.log.tail();
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn failed(kind: FailureKind, message: String) -> Reply {
    Reply::Failed { kind, message }
}

/// The shim's standard error is its log file.
pub fn complain(message: &str) {
    let _ = io::Write::write_all(&mut io::stderr(), format!("{message}\n").as_bytes());
}
