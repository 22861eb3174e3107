//! The execd wire (port 44772), as the published SDKs drive it, and our claim beside it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{PodUid, SandboxId, SandboxUid};

/// `POST /v1/claim`: gives the pod to one sandbox. Signed; see [`crate::auth`](crate).
///
/// Until a verified reset the daemon takes one owner and answers any other with 409
/// `CLAIMED_BY_ANOTHER`. The same claim again is answered as the first time.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimRequest {
    /// Name of the sandbox, for `OPENSANDBOX_ID`.
    pub sandbox_id: SandboxId,
    /// UID of the sandbox: the owner.
    pub sandbox_uid: SandboxUid,
    /// UID of the pod that is meant; must be the daemon's own.
    pub pod_uid: PodUid,
    /// Grows with every grant of the pod; an older one than the last seen is refused.
    pub epoch: u64,
    /// Access token of the owner.
    pub token: String,
    /// Environment of every later command, and of the entrypoint.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Program and arguments to start in the sandbox container, as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
}

impl std::fmt::Debug for ClaimRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClaimRequest")
            .field("sandbox_uid", &self.sandbox_uid)
            .field("pod_uid", &self.pod_uid)
            .field("epoch", &self.epoch)
            .field("entrypoint", &self.entrypoint)
            .finish_non_exhaustive()
    }
}

/// Answer to a claim, and to `GET /v1/claim` (which tells nothing secret and needs no signature).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimStatus {
    /// Whether the pod has an owner.
    pub claimed: bool,
    /// The owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_uid: Option<SandboxUid>,
    /// Epoch of the claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// The entrypoint, when the claim brought one. Only in the answer to the claim itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<EntrypointStatus>,
}

/// `GET /v1/claim/entrypoint?wait=SECONDS` (signed, empty body): answers at once when the
/// entrypoint has ended, else when it ends or the wait (at most 55 s) is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EntrypointStatus {
    /// How it is.
    pub state: EntrypointState,
    /// Exit code; 127 and 126 when the program could not be started, 128 + signal when a signal ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// What a person needs to know: the start error, or the last output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Start time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// End time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
}

/// State of the entrypoint a claim brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntrypointState {
    /// The claim brought none.
    None,
    /// It runs.
    Running,
    /// It has ended, or could not be started.
    Exited,
}

/// `POST /command`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunCommandRequest {
    /// Shell text; exactly one of `command` and `argv` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Program and arguments, run without a shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<String>>,
    /// Working directory; must exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Answer at once and keep the output for `GET /command/{id}/logs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<bool>,
    /// Milliseconds after which the process group is killed; 0 or absent is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
    /// User id to run as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<i64>,
    /// Group id to run as; needs `uid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<i64>,
    /// Environment over the sandbox's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envs: Option<BTreeMap<String, String>>,
}

/// `POST /command` as our daemon takes it: the published request, and what we add to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRequest {
    /// The published members.
    #[serde(flatten)]
    pub published: RunCommandRequest,
    /// User to run as, by name or number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Group to run as, by name or number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Text for its standard input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// Bytes for its standard input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin_base64: Option<String>,
    /// Leave its standard input open for `POST /command/{id}/stdin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin_open: Option<bool>,
    /// Stop it when the stream's reader has gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill_on_disconnect: Option<bool>,
}

impl RunRequest {
    /// Whether it is answered at once.
    pub fn background(&self) -> bool {
        self.published.background.unwrap_or(false)
    }
}

/// Type of a stream event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventType {
    /// First event; `text` is the execution id.
    Init,
    /// One line of standard output without its terminator; an empty line is `"\n"`.
    Stdout,
    /// One line of standard error.
    Stderr,
    /// A value of code execution.
    Result,
    /// The execution failed; terminal for commands.
    Error,
    /// The execution succeeded; terminal for commands.
    ExecutionComplete,
    /// Counter of code executions.
    ExecutionCount,
    /// Keeps idle connections open.
    Ping,
    /// Output is gone: `bytes` of it, from `offset` on. Ours beyond the published ones.
    Gap,
    /// Any other; clients pass over it.
    #[serde(other)]
    Unknown,
}

/// One event of an execution's stream: compact JSON followed by two line feeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamEvent {
    /// Type.
    #[serde(rename = "type")]
    pub event: EventType,
    /// Unix milliseconds. Must be an integer; published parsers drop the event otherwise.
    pub timestamp: i64,
    /// Payload of init, stdout, stderr and ping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Milliseconds, on `execution_complete`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_time: Option<i64>,
    /// On `execution_count`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_count: Option<i64>,
    /// MIME bundle, on `result`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<BTreeMap<String, String>>,
    /// On `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<EventError>,
    /// Where a reader that has this event goes on. This and what follows is ours beyond the published members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Whether the line goes on in the next event of its stream.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// `base64` where `text` is the base64 of the bytes as they were written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// On `gap`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// On `gap`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

/// Why an execution failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventError {
    /// `CommandExecError` for a command.
    pub ename: String,
    /// Decimal exit code for a command, `-1` when a signal ended it.
    pub evalue: String,
    /// Details, e.g. `exit status 3`, `signal: killed`.
    #[serde(default)]
    pub traceback: Vec<String>,
}

/// `GET /command/status/{id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommandStatus {
    /// Execution id.
    pub id: String,
    /// The command as it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Whether it still runs.
    pub running: bool,
    /// Exit code once it has ended; -1 when a signal ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Start time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// End time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
}

/// Kind of a directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileType {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Anything else.
    Other,
}

/// What is known of a file. Links are not followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInfo {
    /// Absolute path.
    pub path: String,
    /// Kind.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<FileType>,
    /// Size in bytes.
    pub size: u64,
    /// Time of the last write.
    pub modified_at: Timestamp,
    /// Time of the last change of the inode.
    pub created_at: Timestamp,
    /// User name, or the number where it has none.
    pub owner: String,
    /// Group name, or the number where it has none.
    pub group: String,
    /// The nine permission bits as octal digits in a decimal number: 644 is `rw-r--r--`.
    pub mode: u32,
}

/// Mode and owners to set; absent or null leaves them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permission {
    /// Octal digits in a decimal number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// User name or number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Group name or number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// The `metadata` part of an upload, before its `file` part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadMetadata {
    /// Where the file goes.
    #[serde(default)]
    pub path: String,
    /// Mode and owners.
    #[serde(flatten)]
    pub permission: Permission,
}

/// One move of `POST /files/mv`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveItem {
    /// From.
    pub src: String,
    /// To.
    pub dest: String,
}

/// One replacement of `POST /files/replace`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplaceItem {
    /// Text to find.
    pub old: String,
    /// Text to put there.
    pub new: String,
}

/// Answer of a replacement with `verbose=true`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replaced {
    /// How many places changed.
    pub replaced_count: u64,
}

/// `GET /metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Usable processors.
    pub cpu_count: f64,
    /// Percent of all usable processors.
    pub cpu_used_pct: f64,
    /// Memory limit in MiB.
    pub mem_total_mib: f64,
    /// Memory in use in MiB.
    pub mem_used_mib: f64,
    /// Unix milliseconds.
    pub timestamp: i64,
}
