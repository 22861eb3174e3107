//! What the node and a pod's shim say to each other: length-prefixed JSON over a Unix socket, descriptors beside it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

/// Longest message in either direction. A pod object is at most 3 MiB, and a container's specification less.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// The file in the pod's directory that the shim reads when it starts.
pub const SANDBOX_FILE: &str = "sandbox.json";
/// The shim's socket in the pod's directory.
pub const SOCKET_FILE: &str = "shim.sock";
/// The shim's journal in the pod's directory.
pub const JOURNAL_FILE: &str = "journal";
/// Where the shim's own complaints go.
pub const SHIM_LOG_FILE: &str = "shim.log";

/// What all containers of the pod share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// The pod's UID.
    pub pod_uid: String,
    /// Host name in the pod.
    pub hostname: String,
    /// One pid namespace for the pod instead of one for each container.
    pub share_process_namespace: bool,
    /// The pod's control group, relative to the hierarchies' roots.
    pub cgroup: String,
    /// Most processes in the pod.
    pub pids_limit: u64,
    /// Settings of the pod's own namespaces, as paths below `/proc/sys`, and their values.
    #[serde(default)]
    pub sysctls: Vec<(String, String)>,
}

/// The file system that a container starts from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Read-only layers, uppermost first.
    pub lower: Vec<PathBuf>,
}

/// Who a container runs as, as far as it can be said without looking into the image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRequest {
    /// `securityContext.runAsUser`.
    pub uid: Option<u32>,
    /// `securityContext.runAsGroup`.
    pub gid: Option<u32>,
    /// The image's `USER`: `name`, `uid`, `name:group`, ...
    pub image_user: Option<String>,
    /// Refuse to run as uid 0.
    pub non_root: bool,
    /// Groups beside those of the image's `/etc/group`.
    pub extra_groups: Vec<u32>,
}

/// Where and how much of a container's output is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSettings {
    /// The log file of this run.
    pub path: PathBuf,
    /// Size at which a file is rotated.
    pub max_bytes: u64,
    /// Files kept, the current one included.
    pub max_files: u32,
}

/// Everything that a container run needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartContainer {
    /// Name in the pod.
    pub name: String,
    /// Which run of this container it is, from 0.
    pub attempt: u32,
    /// Identity of this run: 64 hexadecimal digits.
    pub id: String,
    /// Specification for the runtime; user and `HOME` are filled in by the shim.
    pub spec: Spec,
    /// The image as the pod named it.
    pub image: String,
    /// File system.
    pub root: Root,
    /// User.
    pub user: UserRequest,
    /// Log.
    pub log: LogSettings,
    /// File of the host that the container's termination message is read from.
    pub termination_message: Option<PathBuf>,
    /// The last lines of the log stand in for an empty termination message when the container failed.
    pub message_from_log: bool,
    /// Run the first process on a terminal, whose output is the log.
    #[serde(default)]
    pub tty: bool,
    /// Keep the first process' standard input open, although nobody writes to it.
    #[serde(default)]
    pub stdin: bool,
    /// Apply the default system call filter.
    pub seccomp: bool,
    /// Volumes in memory that must be there; each is mounted once for the pod.
    pub tmpfs: Vec<Tmpfs>,
    /// Parts of volumes that the specification mounts from where they are put first.
    pub sub_paths: Vec<SubPath>,
}

/// A volume in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    /// Where.
    pub path: PathBuf,
    /// Most bytes.
    pub size: Option<u64>,
    /// Permissions of its root.
    pub mode: u32,
}

/// A part of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubPath {
    /// The volume.
    pub volume: PathBuf,
    /// The part, relative to it.
    pub part: PathBuf,
    /// Where it is put.
    pub target: PathBuf,
}

/// A command in a running container. Its stdin, stdout and stderr come as descriptors unless it has a terminal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecProcess {
    /// Container.
    pub container: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Run on a terminal, whose master the answer carries.
    pub tty: bool,
}

/// What the node asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "camelCase")]
pub enum Request {
    /// The state now.
    State,
    /// The state now and after every change, on this connection.
    Watch,
    /// Start a container.
    Start(Box<StartContainer>),
    /// Send a signal to a container's first process.
    Signal {
        /// Container.
        container: String,
        /// Signal number.
        signal: i32,
    },
    /// Forget how the containers ended that do not run: all of them are to start afresh.
    Reset,
    /// End every process of a container.
    Kill {
        /// Container.
        container: String,
    },
    /// Run a command. When the connection closes the command is hung up or, without terminal, killed.
    Exec(ExecProcess),
    /// End everything and exit.
    Shutdown,
}

/// What the shim answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "camelCase")]
pub enum Reply {
    /// State of the pod.
    State(PodState),
    /// Done, nothing to add.
    Done,
    /// The command runs.
    Running {
        /// Its process id on the host.
        pid: i32,
    },
    /// The command has ended.
    Exited {
        /// 128 + signal when a signal ended it.
        code: i32,
    },
    /// It could not be done.
    Failed {
        /// Which kind of failure.
        kind: FailureKind,
        /// The reason.
        message: String,
    },
}

/// Kinds of failures, as far as Kubernetes tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FailureKind {
    /// The container's configuration cannot hold, e.g. its user: waiting with `CreateContainerConfigError`.
    Config,
    /// The container could not be set up: waiting with `CreateContainerError`.
    Create,
    /// The program could not be run: terminated with `StartError`.
    Start,
    /// No such container, or it does not run.
    NotRunning,
    /// The request makes no sense.
    Invalid,
}

/// State of all containers of the pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodState {
    /// The shim's process.
    pub shim_pid: i32,
    /// First process of a shared pid namespace.
    pub pause_pid: Option<i32>,
    /// The runs of each container that are still known, oldest first; at most two.
    pub containers: BTreeMap<String, Vec<Run>>,
}

/// One run of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Which run, from 0.
    pub attempt: u32,
    /// Identity of the run.
    pub id: String,
    /// First process, on the host.
    pub pid: i32,
    /// When it started.
    pub started_at: Timestamp,
    /// The image as the pod named it.
    #[serde(default)]
    pub image: String,
    /// Who it runs as.
    #[serde(default)]
    pub user: Option<RunUser>,
    /// How it ended, once it has.
    pub outcome: Option<Outcome>,
}

/// Who a container runs as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunUser {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Every group that it is in, in order.
    pub groups: Vec<u32>,
}

/// How a container run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Exit code; 128 + signal when a signal ended it.
    pub exit_code: i32,
    /// The signal.
    pub signal: Option<i32>,
    /// The kernel ended a process of it for want of memory.
    pub oom_killed: bool,
    /// It could not even be started.
    pub start_failed: bool,
    /// It was taken away because every container of the pod starts afresh.
    #[serde(default)]
    pub removed: bool,
    /// Termination message.
    pub message: String,
    /// When it ended.
    pub finished_at: Timestamp,
}

impl Outcome {
    /// The outcome of a container that ended with 0 and said nothing.
    pub fn at(finished_at: Timestamp) -> Self {
        Self {
            exit_code: 0,
            signal: None,
            oom_killed: false,
            start_failed: false,
            removed: false,
            message: String::new(),
            finished_at,
        }
    }
}

impl Run {
    /// Whether the run has not ended.
    pub fn running(&self) -> bool {
        self.outcome.is_none()
    }
}

impl PodState {
    /// The newest run of a container.
    pub fn current(&self, container: &str) -> Option<&Run> {
        self.containers.get(container).and_then(|runs| runs.last())
    }
}

/// Frames a message.
pub fn encode<T: Serialize>(message: &T) -> serde_json::Result<Vec<u8>> {
    let mut frame = vec![0u8; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = (frame.len() - 4) as u32;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

/// Takes the first whole message off a buffer.
///
/// # Errors
/// When a message is longer than [`MAX_MESSAGE`].
pub fn take_frame(buffer: &mut Vec<u8>) -> Result<Option<Vec<u8>>, usize> {
    let Some(head) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*head) as usize;
    if length > MAX_MESSAGE {
        return Err(length);
    }
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    let rest = buffer.split_off(4 + length);
    let mut frame = std::mem::replace(buffer, rest);
    frame.drain(..4);
    Ok(Some(frame))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_and_in_order() {
        let mut wire = encode(&Request::State).unwrap();
        wire.extend(encode(&Request::Kill { container: "a".into() }).unwrap());
        let mut seen = Vec::new();
        let mut buffer = Vec::new();
        for byte in wire {
            buffer.push(byte);
            if let Some(frame) = take_frame(&mut buffer).unwrap() {
                seen.push(serde_json::from_slice::<Request>(&frame).unwrap());
            }
        }
        assert!(matches!(seen[..], [Request::State, Request::Kill { .. }]));
        assert!(buffer.is_empty());
    }

    #[test]
    fn an_endless_message_is_refused_by_its_length() {
        assert_eq!(take_frame(&mut vec![0xff, 0, 0, 0]), Err(0xff00_0000));
    }
}
