//! What can go wrong, as one enum a program matches on.

use std::time::Duration;

use api_types::ErrorCode;

/// Result of every call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed.
///
/// ```
/// use opensandbox::{Error, ErrorCode};
///
/// fn advice(error: &Error) -> &'static str {
///     match error.code() {
///         Some(ErrorCode::PoolCapacityExhausted) => "the pool is full",
///         Some(code) => code.action(),
///         None if error.is_retryable() => "try again",
///         None => "give up",
///     }
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server, or the daemon in the sandbox, understood the call and refused it.
    #[error("{operation}: {0}", operation = .0.operation)]
    Api(Box<ApiError>),

    /// No connection could be made, or it broke before the answer was complete.
    #[error("{operation}: cannot reach {target}")]
    Connection {
        /// What was being done, e.g. `create sandbox`.
        operation: &'static str,
        /// Scheme, host and port that were called.
        target: String,
        /// Id the request was sent with.
        request_id: String,
        /// Whether the request cannot have reached the other side.
        before_send: bool,
        /// What the transport said.
        #[source]
        source: reqwest::Error,
    },

    /// The deadline of the call passed.
    #[error("{operation}: no answer from {target} within {after:?}")]
    Timeout {
        /// What was being done.
        operation: &'static str,
        /// Scheme, host and port that were called.
        target: String,
        /// Id the request was sent with.
        request_id: String,
        /// The deadline.
        after: Duration,
    },

    /// The event stream of an execution ended before its terminal event and could not be taken up again: the command
    /// may still run.
    #[error("{operation}: the event stream broke before the end of execution {id}", id = .execution_id.as_deref().unwrap_or("(not started)"))]
    StreamInterrupted {
        /// What was being done.
        operation: &'static str,
        /// Id of the execution, once it is known: ask for its status or interrupt it.
        execution_id: Option<String>,
        /// Why it could not be taken up again; none when the stream was closed in good order.
        #[source]
        source: Option<Box<Error>>,
    },

    /// The daemon of the sandbox did not answer in time. One that was being made has been killed.
    #[error("{sandbox} was not ready within {after:?}")]
    NotReady {
        /// Id of the sandbox.
        sandbox: String,
        /// How long was waited.
        after: Duration,
        /// The last failure of the probe.
        #[source]
        last: Option<Box<Error>>,
    },

    /// The other side answered with something that is not its protocol.
    #[error("{operation}: unexpected answer: {detail}")]
    Protocol {
        /// What was being done.
        operation: &'static str,
        /// What was wrong with it.
        detail: String,
    },

    /// More data came than the call keeps in memory.
    #[error("{operation}: more than {limit} bytes; {hint}")]
    TooLarge {
        /// What was being done.
        operation: &'static str,
        /// The limit in bytes.
        limit: u64,
        /// What to use instead.
        hint: &'static str,
    },

    /// An argument, or a setting in the environment, cannot be used.
    #[error("{what}")]
    InvalidArgument {
        /// Which, and what would be right.
        what: String,
    },

    /// Reading or writing on this side failed.
    #[error("{operation}: local input or output failed")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
}

/// A refusal with everything the other side told about it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ApiError {
    /// What was being done.
    pub operation: &'static str,
    /// HTTP status.
    pub status: u16,
    /// The code as it was sent; `HTTP_<status>` when the answer was not ours.
    pub code: String,
    /// What was wrong, in words.
    pub message: String,
    /// Identifies the request in the server's logs.
    pub request_id: String,
    /// When to try again, if the server said so.
    pub retry_after: Option<Duration>,
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} [{}]", self.message, self.code)
    }
}

impl Error {
    /// The catalogue's code, when the other side refused with one of it.
    pub fn code(&self) -> Option<ErrorCode> {
        self.api().and_then(|e| ErrorCode::from_code(&e.code))
    }

    /// The refusal, when there was one.
    pub fn api(&self) -> Option<&ApiError> {
        match self {
            Self::Api(e) => Some(e),
            Self::NotReady { last: Some(last), .. } => last.api(),
            _ => None,
        }
    }

    /// HTTP status of the refusal.
    pub fn status(&self) -> Option<u16> {
        self.api().map(|e| e.status)
    }

    /// Id of the request, to look for in the server's logs.
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Self::Api(e) => Some(&e.request_id),
            Self::Connection { request_id, .. } | Self::Timeout { request_id, .. } => Some(request_id),
            Self::NotReady { last: Some(inner), .. } | Self::StreamInterrupted { source: Some(inner), .. } => {
                inner.request_id()
            }
            _ => None,
        }
    }

    /// When to try again, if the server said so.
    pub fn retry_after(&self) -> Option<Duration> {
        self.api().and_then(|e| e.retry_after)
    }

    /// Whether the same call may succeed later without anything being corrected.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Api(e) => matches!(e.status, 408 | 425 | 429 | 502 | 503 | 504),
            Self::Connection { .. } | Self::Timeout { .. } | Self::NotReady { .. } => true,
            _ => false,
        }
    }

    /// Whether what was asked for does not exist (any more).
    pub fn is_not_found(&self) -> bool {
        matches!(self.status(), Some(404 | 410))
    }

    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::InvalidArgument { what: what.into() }
    }

    pub(crate) fn protocol(operation: &'static str, detail: impl Into<String>) -> Self {
        Self::Protocol { operation, detail: detail.into() }
    }
}
