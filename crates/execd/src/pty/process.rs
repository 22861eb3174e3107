//! The process of a terminal: its master side or its pipes, what is typed, and its end.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::{SIGCONT, SIGHUP, SIGKILL};
use nix::pty::{Winsize, openpty};
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};

use crate::envs::Env;
use crate::exec::{Child, Outputs};
use crate::journal::{Journal, Source};
use crate::sys::{self, ExitStatus, Input, Sink, SpawnPlan};

/// Bytes taken from a terminal at once.
const READ: usize = 32 << 10;
/// Pieces of what is typed that may wait.
const TYPED: usize = 64;

/// What a terminal runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// On a terminal.
    Pty,
    /// On three pipes.
    Pipe,
}

impl Mode {
    /// As the wire has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pty => "pty",
            Self::Pipe => "pipe",
        }
    }
}

/// How to start one.
pub struct Start<'a> {
    /// Program and arguments.
    pub argv: Vec<OsString>,
    /// The whole environment.
    pub env: &'a Env,
    /// Working directory.
    pub cwd: &'a Path,
    /// Terminal or pipes.
    pub mode: Mode,
    /// Columns and rows.
    pub size: (u16, u16),
}

/// A running process.
pub struct Process {
    /// Terminal or pipes.
    pub mode: Mode,
    pid: i32,
    master: Option<Arc<AsyncFd<OwnedFd>>>,
    typed: mpsc::Sender<Vec<u8>>,
    /// Exit code and the offset at which its output ends, once it has ended.
    pub end: watch::Receiver<Option<(i32, u64)>>,
}

impl Process {
    /// Starts it; its output goes into the journal.
    ///
    /// # Errors
    /// There is no such program, no terminal, or no room for a process.
    pub fn start(start: Start<'_>, journal: Arc<Journal>) -> io::Result<Self> {
        let env: Vec<_> = start.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let cwd = start.cwd.to_owned();
        let plan =
            |sink, input| SpawnPlan { argv: &start.argv, env: &env, cwd: Some(&cwd), credentials: None, sink, input };
        let (end_in, end) = watch::channel(None);
        let (typed, keys) = mpsc::channel(TYPED);
        match start.mode {
            Mode::Pty => {
                let pair = openpty(&winsize(start.size), None)?;
                for fd in [&pair.master, &pair.slave] {
                    fcntl(fd, FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
                }
                fcntl(&pair.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK | OFlag::O_RDWR))?;
                let child = Child::new(sys::spawn(plan(Sink::Terminal(pair.slave), Input::Null))?)?;
                let (pid, master) = (child.pid(), Arc::new(sys::watch_both(pair.master)?));
                tokio::spawn(type_terminal(master.clone(), keys));
                tokio::spawn(run_terminal(child, master.clone(), journal, end_in));
                Ok(Self { mode: Mode::Pty, pid, master: Some(master), typed, end })
            }
            Mode::Pipe => {
                let (out_read, out_write) = crate::exec::pipe()?;
                let (err_read, err_write) = crate::exec::pipe()?;
                let (in_read, in_write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
                let sink = Sink::Split(out_write, err_write);
                let child = Child::new(sys::spawn(plan(sink, Input::From(in_read)))?)?;
                let pid = child.pid();
                tokio::spawn(type_pipe(pipe::Sender::from_owned_fd(in_write)?, keys));
                tokio::spawn(run_pipes(child, Outputs::new(out_read, Some(err_read)), journal, end_in));
                Ok(Self { mode: Mode::Pipe, pid, master: None, typed, end })
            }
        }
    }

    /// Exit code and end of the output, if it has ended.
    pub fn ended(&self) -> Option<(i32, u64)> {
        *self.end.borrow()
    }

    /// Types. False if it takes nothing any more, or has not for as long as `patience`.
    pub async fn type_in(&self, bytes: Vec<u8>, patience: Duration) -> bool {
        self.typed.send_timeout(bytes, patience).await.is_ok()
    }

    /// Sets the window's size; nothing on pipes.
    pub fn resize(&self, size: (u16, u16)) {
        if let Some(master) = &self.master {
            sys::set_window(master.get_ref(), &winsize(size));
        }
    }

    /// Signals the job in the foreground.
    pub fn signal(&self, signal: i32) {
        if self.ended().is_none() {
            let foreground = self.master.as_ref().and_then(|m| nix::unistd::tcgetpgrp(m.get_ref()).ok());
            // A job that has gone meanwhile needs no signal.
            let _ = sys::kill_group(foreground.map_or(self.pid, nix::unistd::Pid::as_raw), signal);
        }
    }

    /// Ends it: the job in the foreground, then the process itself.
    pub fn kill(&self) {
        self.signal(SIGKILL);
        if self.ended().is_none() {
            let _ = sys::kill_group(self.pid, SIGHUP);
            let _ = sys::kill_group(self.pid, SIGCONT);
            let _ = sys::kill_group(self.pid, SIGKILL);
        }
    }
}

fn winsize((cols, rows): (u16, u16)) -> Winsize {
    Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 }
}

fn code(status: Option<ExitStatus>) -> i32 {
    match status {
        Some(ExitStatus::Code(code)) => code,
        Some(ExitStatus::Signal { .. }) | None => -1,
    }
}

/// One read of what a terminal has; false at its end.
fn take(master: &AsyncFd<OwnedFd>, journal: &Journal) -> io::Result<bool> {
    let mut bytes = [0; READ];
    let count = nix::unistd::read(master.get_ref(), &mut bytes)?;
    journal.append(Source::Stdout, bytes.get(..count).unwrap_or_default());
    Ok(count > 0)
}

async fn run_terminal(
    mut child: Child,
    master: Arc<AsyncFd<OwnedFd>>,
    journal: Arc<Journal>,
    end: watch::Sender<Option<(i32, u64)>>,
) {
    let mut open = true;
    loop {
        let pump = async {
            journal.paced().await;
            master.readable().await
        };
        tokio::select! {
            biased;
            _ = child.exited() => break,
            ready = pump, if open => {
                let Ok(mut guard) = ready else { open = false; continue };
                match guard.try_io(|master| take(master, &journal)) {
                    Ok(Ok(true)) | Err(_) => {}
                    Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                    // The other side is closed everywhere; the process may live on without it.
                    Ok(_) => open = false,
                }
            }
        }
    }
    // All that was written before the end: the kernel hands it over before it says that there is nothing.
    while let Ok(true) = take(&master, &journal) {}
    let code = code(child.reap());
    end.send_replace(Some((code, journal.end())));
}

async fn run_pipes(
    mut child: Child,
    mut outputs: Outputs,
    journal: Arc<Journal>,
    end: watch::Sender<Option<(i32, u64)>>,
) {
    loop {
        tokio::select! {
            biased;
            _ = child.exited() => break,
            () = outputs.pump(&journal), if outputs.open() => {}
        }
    }
    outputs.drain(&journal);
    let code = code(child.reap());
    end.send_replace(Some((code, journal.end())));
}

async fn type_terminal(master: Arc<AsyncFd<OwnedFd>>, mut keys: mpsc::Receiver<Vec<u8>>) {
    while let Some(bytes) = keys.recv().await {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let Ok(mut guard) = master.writable().await else { return };
            match guard.try_io(|master| Ok(nix::unistd::write(master.get_ref(), rest)?)) {
                Ok(Ok(count)) => rest = rest.get(count..).unwrap_or_default(),
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(_)) => return,
                Err(_) => {}
            }
        }
    }
}

async fn type_pipe(mut pipe: pipe::Sender, mut keys: mpsc::Receiver<Vec<u8>>) {
    use tokio::io::AsyncWriteExt;
    while let Some(bytes) = keys.recv().await {
        if pipe.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// The number of a signal that a client may send.
pub fn signal_number(name: &str) -> Option<i32> {
    use nix::libc::{SIGINT, SIGQUIT, SIGTERM};
    Some(match name {
        "SIGINT" => SIGINT,
        "SIGTERM" => SIGTERM,
        "SIGKILL" => SIGKILL,
        "SIGQUIT" => SIGQUIT,
        "SIGHUP" => SIGHUP,
        _ => return None,
    })
}
