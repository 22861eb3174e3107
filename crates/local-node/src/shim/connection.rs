//! One connection to the shim: what has arrived of a request, what is still to be sent, the command that it stands for.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::proto::{FailureKind, Reply, Request, encode, take_frame};
use crate::sys;

/// Answers that may wait for a slow reader; one that lags further is cut off and reconnects.
const MAX_WAITING: usize = 16 * 1024 * 1024;

/// A connection.
pub struct Connection {
    stream: UnixStream,
    arrived: Vec<u8>,
    fds: Vec<OwnedFd>,
    waiting: Vec<u8>,
    watching: bool,
    command: Option<(Pid, bool)>,
    closed: bool,
}

impl Connection {
    /// A connection that has said nothing yet.
    pub fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            arrived: Vec::new(),
            fds: Vec::new(),
            waiting: Vec::new(),
            watching: false,
            command: None,
            closed: false,
        }
    }

    /// The socket.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// What to wait for.
    pub fn interest(&self) -> PollFlags {
        if self.waiting.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLIN | PollFlags::POLLOUT }
    }

    /// Sends what can be sent and reads what has come; returns whole requests.
    pub fn exchange(&mut self) -> Vec<Request> {
        self.flush();
        let mut buffer = [0u8; 16 * 1024];
        loop {
            match sys::recv_with_fds(&self.stream, &mut buffer) {
                Ok((0, _)) => {
                    self.close();
                    break;
                }
                Ok((count, fds)) => {
                    self.arrived.extend_from_slice(&buffer[..count]);
                    self.fds.extend(fds);
                    if self.fds.len() > sys::MAX_FDS {
                        self.close();
                        break;
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(_) => {
                    self.close();
                    break;
                }
            }
        }
        let mut requests = Vec::new();
        loop {
            match take_frame(&mut self.arrived) {
                Ok(Some(frame)) => match serde_json::from_slice(&frame) {
                    Ok(request) => requests.push(request),
                    Err(error) => self.answer(
                        &Reply::Failed { kind: FailureKind::Invalid, message: format!("not a request: {error}") },
                        &[],
                    ),
                },
                Ok(None) => break,
                Err(_) => {
                    self.close();
                    break;
                }
            }
        }
        requests
    }

    /// The descriptors that came with the last request.
    pub fn take_fds(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.fds)
    }

    /// Sends an answer; what does not fit waits. Descriptors go with it at once or not at all.
    pub fn answer(&mut self, reply: &Reply, fds: &[OwnedFd]) {
        let Ok(frame) = encode(reply) else { return };
        if fds.is_empty() || !self.waiting.is_empty() {
            self.waiting.extend_from_slice(&frame);
        } else {
            let numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
            match sys::send_with_fds(&self.stream, &frame, &numbers) {
                Ok(count) => self.waiting.extend_from_slice(&frame[count..]),
                Err(_) => self.close(),
            }
        }
        if self.waiting.len() > MAX_WAITING {
            self.close();
        }
        self.flush();
    }

    /// Sends what can be sent now.
    pub fn flush(&mut self) {
        while !self.waiting.is_empty() && !self.closed {
            match sys::send_with_fds(&self.stream, &self.waiting, &[]) {
                Ok(count) => {
                    self.waiting.drain(..count);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(_) => self.close(),
            }
        }
    }

    /// Sends the last words, waiting a little for the reader.
    pub fn flush_blocking(&mut self) {
        let _ = self.stream.set_write_timeout(Some(std::time::Duration::from_secs(1)));
        let _ = self.stream.set_nonblocking(false);
        self.flush();
    }

    /// From now on every change is told here.
    pub fn watch(&mut self) {
        self.watching = true;
    }

    /// Whether every change is told here.
    pub fn watches(&self) -> bool {
        self.watching
    }

    /// The connection stands for a running command.
    pub fn runs(&mut self, pid: Pid, terminal: bool) {
        self.command = Some((pid, terminal));
    }

    /// The running command.
    pub fn command(&self) -> Option<Pid> {
        self.command.map(|(pid, _)| pid)
    }

    /// The command has ended and been reaped.
    pub fn command_ended(&mut self) {
        self.command = None;
    }

    /// Whether the other side is gone.
    pub fn closed(&self) -> bool {
        self.closed
    }

    fn close(&mut self) {
        self.closed = true;
        if let Some((pid, terminal)) = self.command.take() {
            let _ = kill(pid, if terminal { Signal::SIGHUP } else { Signal::SIGKILL });
        }
    }
}
