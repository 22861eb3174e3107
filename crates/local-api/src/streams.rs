//! What the API needs of a node: a container's log, a command run in it, a connection to one of its ports.
//!
//! The API owns the wire (chunked bodies, WebSocket channels); whoever runs the pods implements
//! [`PodStreams`] and never sees a request.

use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

/// A stream of log bytes, or of anything else that comes in pieces.
pub type ByteStream = Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send>>;
/// The reading half of a container's stdio.
pub type Reader = Pin<Box<dyn AsyncRead + Send>>;
/// The writing half of a container's stdio.
pub type Writer = Pin<Box<dyn AsyncWrite + Send>>;

/// Names one pod, as a request's path does. The node refuses when `uid` is given and differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRef {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// UID of the pod object that the API read, so that a namesake is never meant.
    pub uid: String,
}

/// The query of `GET pods/{name}/log`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Container; the API has already filled in the default one.
    pub container: String,
    /// Stay and send what is still to come, until the container ends.
    pub follow: bool,
    /// The log of the container's previous run.
    pub previous: bool,
    /// Prefix each line with its RFC 3339 time.
    pub timestamps: bool,
    /// Only the last so many lines.
    pub tail_lines: Option<u64>,
    /// Only lines of the last so many seconds.
    pub since_seconds: Option<u64>,
    /// Stop after so many bytes.
    pub limit_bytes: Option<u64>,
}

/// The query of `pods/{name}/exec` and `pods/{name}/attach`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOptions {
    /// Container; the API has already filled in the default one.
    pub container: String,
    /// Program and arguments; empty for `attach`.
    pub command: Vec<String>,
    /// The caller sends standard input.
    pub stdin: bool,
    /// The caller reads standard output.
    pub stdout: bool,
    /// The caller reads standard error; with `tty` it is part of standard output.
    pub stderr: bool,
    /// Run on a terminal.
    pub tty: bool,
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// A running command's ends. Dropping it closes the pipes and, for `exec`, ends the command with SIGHUP if it has a terminal.
pub struct ExecStreams {
    /// Where the caller's standard input goes, when it was asked for.
    pub stdin: Option<Writer>,
    /// The command's standard output, when it was asked for.
    pub stdout: Option<Reader>,
    /// The command's standard error, when it was asked for and there is no terminal.
    pub stderr: Option<Reader>,
    /// New terminal sizes, when there is a terminal.
    pub resize: Option<tokio::sync::mpsc::Sender<TerminalSize>>,
    /// Resolves to the exit code once the command has ended; 128 + signal when a signal ended it.
    pub exit: BoxFuture<'static, Result<i32, StreamError>>,
}

/// Two directions of one TCP connection into a pod.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Why a stream could not be had. The API turns these into a Kubernetes `Status`.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The node does not know this pod (any more). Answered as 404.
    #[error("pod {0} is not on this node")]
    NoSuchPod(String),
    /// The pod has no container of that name. Answered as 400.
    #[error("container {container} is not valid for pod {pod}")]
    NoSuchContainer {
        /// Pod asked for.
        pod: String,
        /// Container asked for.
        container: String,
    },
    /// The container exists but does not run now. Answered as 400 with Kubernetes' wording left to the message.
    #[error("container {container} in pod {pod} is {state}")]
    NotRunning {
        /// Pod asked for.
        pod: String,
        /// Container asked for.
        container: String,
        /// What it is instead, e.g. `waiting to start: ContainerCreating`.
        state: String,
    },
    /// The program could not be started in the container. Answered as 500, or as an exit of 126/127 on the error channel.
    #[error("cannot run {program}: {reason}")]
    CannotRun {
        /// The program.
        program: String,
        /// The system's reason.
        reason: String,
    },
    /// Anything else the system refused.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// The node's side of `pods/log`, `pods/exec`, `pods/attach` and `pods/portforward`.
#[async_trait]
pub trait PodStreams: Send + Sync + 'static {
    /// Opens a container's log.
    async fn logs(&self, pod: &PodRef, options: LogOptions) -> Result<ByteStream, StreamError>;

    /// Starts a command in a running container (or attaches to it when `command` is empty).
    async fn exec(&self, pod: &PodRef, options: ExecOptions) -> Result<ExecStreams, StreamError>;

    /// Connects to a port inside the pod's network namespace.
    async fn port_forward(&self, pod: &PodRef, port: u16) -> Result<Box<dyn Duplex>, StreamError>;
}
