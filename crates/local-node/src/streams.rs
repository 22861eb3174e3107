//! What users do with running pods: read logs, run commands, reach ports.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use local_api::streams::{
    ByteStream, Duplex, ExecOptions, ExecStreams, LogOptions, PodRef, PodStreams, StreamError, TerminalSize,
};
use parking_lot::RwLock;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use crate::logs;
use crate::pod::exec::{self, Command, Wanted};
use crate::pod::worker::Shared;
use crate::shim::client::{Shim, ShimError};
use crate::shim::proto::{FailureKind, Run};
use crate::sys;

/// Longest wait for a pod's port.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// The pods that run here, by UID.
#[derive(Clone, Default)]
pub struct Streams {
    pods: Arc<RwLock<HashMap<String, Arc<Shared>>>>,
}

impl Streams {
    /// A pod has come.
    pub fn add(&self, uid: &str, pod: Arc<Shared>) {
        self.pods.write().insert(uid.to_owned(), pod);
    }

    /// A pod has gone.
    pub fn remove(&self, uid: &str) {
        self.pods.write().remove(uid);
    }

    fn find(&self, pod: &PodRef) -> Result<Arc<Shared>, StreamError> {
        self.pods.read().get(&pod.uid).cloned().ok_or_else(|| StreamError::NoSuchPod(pod.name.clone()))
    }
}

fn not_running(pod: &PodRef, container: &str, state: &str) -> StreamError {
    StreamError::NotRunning { pod: pod.name.clone(), container: container.to_owned(), state: state.to_owned() }
}

#[async_trait]
impl PodStreams for Streams {
    async fn logs(&self, pod: &PodRef, options: LogOptions) -> Result<ByteStream, StreamError> {
        let shared = self.find(pod)?;
        let runs = shared.state.borrow().containers.get(&options.container).cloned().unwrap_or_default();
        let run = if options.previous { runs.iter().rev().nth(1) } else { runs.last() };
        let Some(run) = run else {
            let state = if options.previous { "not terminated before" } else { "waiting to start: ContainerCreating" };
            return Err(not_running(pod, &options.container, state));
        };
        let file = logs::path(&shared.dir, &options.container, run.attempt);
        let mut state = shared.state.subscribe();
        let (name, id) = (options.container.clone(), run.id.clone());
        let over = async move {
            let ended = |runs: Option<&Vec<Run>>| {
                runs.and_then(|runs| runs.iter().find(|run| run.id == id)).is_none_or(|run| !run.running())
            };
            // An error means that the pod is gone, and its container with it.
            let _ = state.wait_for(|state| ended(state.containers.get(&name))).await;
        };
        let pieces = logs::read(file, options, over);
        Ok(Box::pin(tokio_stream::wrappers::ReceiverStream::new(pieces)))
    }

    async fn exec(&self, pod: &PodRef, options: ExecOptions) -> Result<ExecStreams, StreamError> {
        let shared = self.find(pod)?;
        let Some(program) = options.command.first().cloned() else {
            return Err(StreamError::CannotRun {
                program: options.container.clone(),
                reason: "attach is not supported by this node; use exec or logs".to_owned(),
            });
        };
        if !shared.state.borrow().current(&options.container).is_some_and(Run::running) {
            return Err(not_running(pod, &options.container, "not running"));
        }
        let wanted = Wanted { stdin: options.stdin, stdout: options.stdout, stderr: options.stderr, tty: options.tty };
        let shim = Shim::at(&shared.dir);
        let command =
            exec::start(&shim, &options.container, options.command, wanted).await.map_err(|error| match error {
                ShimError::Failed { kind: FailureKind::NotRunning, .. } | ShimError::Gone => {
                    not_running(pod, &options.container, "not running")
                }
                other => StreamError::CannotRun { program, reason: other.to_string() },
            })?;
        streams(command, options.stdin, options.stdout)
    }

    async fn port_forward(&self, pod: &PodRef, port: u16) -> Result<Box<dyn Duplex>, StreamError> {
        let shared = self.find(pod)?;
        let ip: Option<IpAddr> = shared.ip.lock().as_ref().and_then(|ip| ip.parse().ok());
        let ip = ip.ok_or_else(|| StreamError::NoSuchPod(pod.name.clone()))?;
        let connect = tokio::net::TcpStream::connect(SocketAddr::new(ip, port));
        match tokio::time::timeout(CONNECT_PATIENCE, connect).await {
            Ok(stream) => Ok(Box::new(stream?)),
            Err(_) => Err(StreamError::Io(std::io::Error::from(std::io::ErrorKind::TimedOut))),
        }
    }
}

fn streams(command: Command, stdin: bool, stdout: bool) -> Result<ExecStreams, StreamError> {
    let Command { mut session, stdin: input, stdout: output, stderr, terminal } = command;
    let exit = Box::pin(async move {
        Command::wait(&mut session).await.map_err(|error| StreamError::Io(std::io::Error::other(error)))
    });
    let Some(terminal) = terminal else {
        let receiver = |fd: OwnedFd| pipe::Receiver::from_owned_fd(fd);
        return Ok(ExecStreams {
            stdin: match input {
                Some(fd) => Some(Box::pin(pipe::Sender::from_owned_fd(fd)?)),
                None => None,
            },
            stdout: match output {
                Some(fd) => Some(Box::pin(receiver(fd)?)),
                None => None,
            },
            stderr: match stderr {
                Some(fd) => Some(Box::pin(receiver(fd)?)),
                None => None,
            },
            resize: None,
            exit,
        });
    };
    let (resize, mut sizes) = mpsc::channel::<TerminalSize>(4);
    let sized = terminal.try_clone()?;
    tokio::spawn(async move {
        while let Some(size) = sizes.recv().await {
            let _ = sys::set_terminal_size(&sized, size.width, size.height);
        }
    });
    let reader = Terminal::new(terminal.try_clone()?)?;
    let writer = Terminal::new(terminal)?;
    Ok(ExecStreams {
        stdin: if stdin { Some(Box::pin(writer)) } else { None },
        stdout: if stdout { Some(Box::pin(reader)) } else { None },
        stderr: None,
        resize: Some(resize),
        exit,
    })
}

/// A terminal's master.
struct Terminal(AsyncFd<OwnedFd>);

impl Terminal {
    fn new(fd: OwnedFd) -> std::io::Result<Self> {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        let flags = OFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self(sys::watched(fd)?))
    }
}

impl AsyncRead for Terminal {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let result = guard.try_io(|fd| {
                nix::unistd::read(fd.get_ref(), buffer.initialize_unfilled()).map_err(std::io::Error::from)
            });
            match result {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // The last process has closed its side: that is a terminal's end of file.
                Ok(Err(error)) if error.raw_os_error() == Some(nix::libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            let result = guard.try_io(|fd| nix::unistd::write(fd.get_ref(), bytes).map_err(std::io::Error::from));
            if let Ok(result) = result {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// What a keyboard's end of input is on a terminal.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.poll_write(cx, &[4]).map_ok(drop)
    }
}
