//! The node's side of a shim: starting one, reaching it, asking it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Interest};
use tokio::net::UnixStream;

use super::proto::{
    FailureKind, MAX_MESSAGE, PodState, Reply, Request, SANDBOX_FILE, SHIM_LOG_FILE, SOCKET_FILE, Sandbox, encode,
    take_frame,
};
use crate::sys;

/// Longest wait for a shim to make its sandbox.
const START_PATIENCE: Duration = Duration::from_secs(20);
/// Longest wait for an answer. Starting a container on a busy machine is the slowest of them.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);

/// Why a shim could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// Nobody listens: the shim is gone.
    #[error("the pod's shim is gone")]
    Gone,
    /// It did not answer in time.
    #[error("the pod's shim does not answer")]
    Silent,
    /// It could not be started.
    #[error("cannot start the pod's shim: {0}")]
    Start(String),
    /// It refused.
    #[error("{message}")]
    Failed {
        /// Which kind of failure.
        kind: FailureKind,
        /// The reason.
        message: String,
    },
    /// It said something else than an answer to the question.
    #[error("the pod's shim answered out of turn")]
    Protocol,
    /// The system refused.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The address of a pod's shim.
#[derive(Debug, Clone)]
pub struct Shim {
    dir: PathBuf,
}

/// One connection to a shim.
pub struct Session {
    stream: UnixStream,
    arrived: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Shim {
    /// The shim of a pod's directory, whether it lives or not.
    pub fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Starts a shim; returns once its sandbox is made.
    pub async fn start(dir: &Path, sandbox: &Sandbox) -> Result<Self, ShimError> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        std::fs::write(dir.join(SANDBOX_FILE), serde_json::to_vec(sandbox).map_err(io::Error::other)?)?;
        let log = std::fs::File::options().create(true).append(true).open(dir.join(SHIM_LOG_FILE))?;
        let mut child = tokio::process::Command::new("/proc/self/exe")
            .arg0("osb-shim")
            .arg(super::VERB)
            .arg(dir)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let stdout = child.stdout.take().ok_or(ShimError::Protocol)?;
        let mut line = String::new();
        let mut reader = BufReader::new(stdout);
        let read = tokio::time::timeout(START_PATIENCE, reader.read_line(&mut line)).await;
        match read {
            Ok(Ok(_)) if line == "\n" => {
                // It outlives us; while we live we are its parent and must reap it.
                tokio::spawn(async move {
                    let _ = child.wait().await;
                });
                Ok(Self::at(dir))
            }
            Ok(read) => {
                let _ = child.kill().await;
                let detail = match read {
                    Ok(0) => "it ended at once".to_owned(),
                    Ok(_) => line.trim_end().to_owned(),
                    Err(error) => error.to_string(),
                };
                Err(ShimError::Start(detail))
            }
            Err(_) => {
                let _ = child.kill().await;
                Err(ShimError::Start("it did not get ready in time".to_owned()))
            }
        }
    }

    /// Opens a connection.
    pub async fn connect(&self) -> Result<Session, ShimError> {
        let dir = std::fs::File::open(&self.dir).map_err(gone)?;
        // The address of a socket is short and the pod's directory may not be.
        let path = format!("/proc/self/fd/{}/{SOCKET_FILE}", dir.as_raw_fd());
        let stream = UnixStream::connect(path).await.map_err(gone)?;
        Ok(Session { stream, arrived: Vec::new(), fds: Vec::new() })
    }

    /// Asks one question on a connection of its own.
    pub async fn ask(&self, request: &Request) -> Result<Reply, ShimError> {
        let ask = async {
            let mut session = self.connect().await?;
            session.send(request, &[]).await?;
            session.receive().await
        };
        match tokio::time::timeout(ANSWER_PATIENCE, ask).await {
            Ok(Ok(Reply::Failed { kind, message })) => Err(ShimError::Failed { kind, message }),
            Ok(answer) => answer,
            Err(_) => Err(ShimError::Silent),
        }
    }

    /// Asks for something that has no answer but that it was done.
    pub async fn order(&self, request: &Request) -> Result<(), ShimError> {
        match self.ask(request).await? {
            Reply::Done => Ok(()),
            _ => Err(ShimError::Protocol),
        }
    }

    /// The state now.
    pub async fn state(&self) -> Result<PodState, ShimError> {
        match self.ask(&Request::State).await? {
            Reply::State(state) => Ok(state),
            _ => Err(ShimError::Protocol),
        }
    }
}

impl Session {
    /// Sends a request, and descriptors with its first bytes.
    pub async fn send(&mut self, request: &Request, fds: &[RawFd]) -> Result<(), ShimError> {
        let frame = encode(request).map_err(io::Error::other)?;
        if frame.len() > MAX_MESSAGE {
            return Err(ShimError::Failed {
                kind: FailureKind::Config,
                message: format!("the container's specification is larger than {MAX_MESSAGE} bytes"),
            });
        }
        let mut sent = 0;
        let mut fds = fds;
        while sent < frame.len() {
            self.stream.writable().await?;
            let result = self.stream.try_io(Interest::WRITABLE, || {
                sys::send_with_fds(&self.stream, &frame[sent..], fds).map_err(io::Error::from)
            });
            match result {
                Ok(count) => {
                    sent += count;
                    fds = &[];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(gone(error)),
            }
        }
        Ok(())
    }

    /// The next answer.
    pub async fn receive(&mut self) -> Result<Reply, ShimError> {
        loop {
            if let Some(frame) = take_frame(&mut self.arrived).map_err(|_| ShimError::Protocol)? {
                return serde_json::from_slice(&frame).map_err(|_| ShimError::Protocol);
            }
            self.stream.readable().await?;
            let mut buffer = [0u8; 16 * 1024];
            let result = self
                .stream
                .try_io(Interest::READABLE, || sys::recv_with_fds(&self.stream, &mut buffer).map_err(io::Error::from));
            match result {
                Ok((0, _)) => return Err(ShimError::Gone),
                Ok((count, fds)) => {
                    self.arrived.extend_from_slice(&buffer[..count]);
                    self.fds.extend(fds);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(gone(error)),
            }
        }
    }

    /// The descriptors that came with answers so far.
    pub fn take_fds(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.fds)
    }
}

/// A refused or broken connection means that the shim is not there any more.
fn gone(error: io::Error) -> ShimError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::NotFound
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset => ShimError::Gone,
        _ => ShimError::Io(error),
    }
}
