//! Typed events of an execution.

use std::{collections::BTreeMap, time::Duration};

use api_types::execd::{EventError, EventType, StreamEvent};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use jiff::Timestamp;

/// One event of an execution.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// It has started.
    Started {
        /// Its id, for status, logs and interruption.
        id: String,
        /// When.
        at: Timestamp,
    },
    /// A line of standard output.
    Stdout(OutputMessage),
    /// A line of standard error.
    Stderr(OutputMessage),
    /// A value of code execution, by MIME type.
    Result(BTreeMap<String, String>),
    /// Output that is gone for good: more came than the daemon keeps.
    Gap {
        /// Place of the first lost byte.
        offset: u64,
        /// How many bytes are lost.
        bytes: u64,
    },
    /// Counter of code executions.
    ExecutionCount(i64),
    /// It failed. The last event of a command.
    Failed(ExecutionError),
    /// It succeeded, or, in the background, has started. The last event of a command.
    Completed {
        /// How long it took, measured in the sandbox.
        duration: Duration,
        /// When.
        at: Timestamp,
    },
}

impl Event {
    /// Whether a command sends nothing after it.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Completed { .. })
    }

    /// The event, unless it is one that only keeps the connection open or is not known.
    pub(crate) fn from_wire(event: StreamEvent) -> Option<Self> {
        let at = Timestamp::from_millisecond(event.timestamp).unwrap_or_default();
        Some(match event.event {
            EventType::Init => Self::Started { id: event.text.unwrap_or_default(), at },
            EventType::Stdout => Self::Stdout(OutputMessage::from_wire(event, at)),
            EventType::Stderr => Self::Stderr(OutputMessage::from_wire(event, at)),
            EventType::Result => Self::Result(event.results.unwrap_or_default()),
            EventType::ExecutionCount => Self::ExecutionCount(event.execution_count.unwrap_or_default()),
            EventType::Error => Self::Failed(ExecutionError::from_wire(event.error, at)),
            EventType::ExecutionComplete => {
                let millis = event.execution_time.and_then(|ms| u64::try_from(ms).ok()).unwrap_or_default();
                Self::Completed { duration: Duration::from_millis(millis), at }
            }
            EventType::Gap => {
                Self::Gap { offset: event.offset.unwrap_or_default(), bytes: event.bytes.unwrap_or_default() }
            }
            EventType::Ping | EventType::Unknown => return None,
        })
    }
}

/// A line of output, or a part of one, and when it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputMessage {
    at: Timestamp,
    text: String,
    /// The bytes as they were written, where they came so.
    exact: Option<Bytes>,
    partial: bool,
}

impl OutputMessage {
    fn from_wire(event: StreamEvent, at: Timestamp) -> Self {
        let text = event.text.unwrap_or_default();
        let exact = event.encoding.filter(|encoding| encoding == "base64").and_then(|_| STANDARD.decode(&text).ok());
        let text = match &exact {
            Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            // An empty line comes as a line feed, since empty texts are left out.
            None if text == "\n" => String::new(),
            None => text,
        };
        Self { at, text, partial: event.partial || exact.is_some(), exact: exact.map(Bytes::from) }
    }

    /// The line without its terminator; with [`RunCommand::exact`](crate::RunCommand::exact) the bytes as text, line
    /// feeds and all. What is no UTF-8 is replaced.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The bytes as they were written, terminators and all, where
    /// [`RunCommand::exact`](crate::RunCommand::exact) asked for them and the daemon gives them.
    pub fn exact(&self) -> Option<&Bytes> {
        self.exact.as_ref()
    }

    /// Whether no line ends here: it goes on in the next message of its stream, or has been given with its end.
    pub fn is_partial(&self) -> bool {
        self.partial
    }

    /// Appends it to the bytes that are printed: as it was written, or as a line.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.exact.as_deref().unwrap_or(self.text.as_bytes()));
        if !self.partial {
            out.push(b'\n');
        }
    }

    /// When it was read from the command.
    pub fn at(&self) -> Timestamp {
        self.at
    }
}

/// Why an execution failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {value}")]
#[non_exhaustive]
pub struct ExecutionError {
    /// `CommandExecError` for a command.
    pub name: String,
    /// The exit code for a command that ran, the reason for one that could not be started.
    pub value: String,
    /// Details, e.g. `exit status 3` or `signal: killed`.
    pub traceback: Vec<String>,
    /// When.
    pub at: Timestamp,
}

impl ExecutionError {
    fn from_wire(error: Option<EventError>, at: Timestamp) -> Self {
        let error = error.unwrap_or_else(|| EventError {
            ename: "UnknownError".to_owned(),
            evalue: String::new(),
            traceback: Vec::new(),
        });
        Self { name: error.ename, value: error.evalue, traceback: error.traceback, at }
    }

    /// The exit code; -1 when a signal ended the command, none when it could not be started.
    pub fn exit_code(&self) -> Option<i32> {
        self.value.parse().ok()
    }
}
