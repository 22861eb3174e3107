//! An execution's events as they are on the wire: the published members, and what says where to go on.

use std::collections::BTreeMap;

use api_types::execd::{EventError, RunCommandRequest};
use serde::{Deserialize, Serialize};

/// Type of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Init,
    Stdout,
    Stderr,
    Result,
    Error,
    ExecutionComplete,
    ExecutionCount,
    Ping,
    /// Output is gone: `bytes` of it, from `offset` on.
    Gap,
    #[serde(other)]
    Unknown,
}

/// One event. What a daemon does not send is absent: published ones have no cursor.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct WireEvent {
    #[serde(rename = "type")]
    pub(crate) kind: Kind,
    pub(crate) timestamp: i64,
    #[serde(default)]
    pub(crate) text: Option<String>,
    #[serde(default)]
    pub(crate) execution_time: Option<i64>,
    #[serde(default)]
    pub(crate) execution_count: Option<i64>,
    #[serde(default)]
    pub(crate) results: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub(crate) error: Option<EventError>,
    /// Where a reader that has this event goes on.
    #[serde(default)]
    pub(crate) cursor: Option<String>,
    /// The line goes on in the next event of its stream.
    #[serde(default)]
    pub(crate) partial: bool,
    /// `base64` where `text` is the base64 of the bytes as they are.
    #[serde(default)]
    pub(crate) encoding: Option<String>,
    #[serde(default)]
    pub(crate) bytes: Option<u64>,
    #[serde(default)]
    pub(crate) offset: Option<u64>,
}

/// Body of `POST /command`: the published members, and what our daemon takes beyond them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct CommandBody {
    #[serde(flatten)]
    pub(crate) request: RunCommandRequest,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stdin_base64: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) stdin_open: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) kill_on_disconnect: bool,
}
