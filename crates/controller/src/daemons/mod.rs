//! What the controller says to the daemons in a pod.

mod http;

use std::time::Duration;

use api_types::execd::{ClaimRequest, ClaimStatus, EntrypointStatus};
use api_types::ids::PodUid;
use api_types::tasks::Task;
use async_trait::async_trait;
pub use http::HttpDaemons;

/// Where a daemon is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonAddress {
    /// Address of the pod.
    pub ip: String,
    /// Port of the daemon.
    pub port: u16,
    /// UID of the pod that is meant; calls are signed for it alone.
    pub pod: PodUid,
}

/// The tasks of an executor.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskList {
    /// Its tasks.
    pub tasks: Vec<Task>,
    /// Stands for this state in the next call; absent from executors that do not hold requests.
    pub tag: Option<String>,
}

/// Why a call to a daemon failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DaemonError {
    /// It did not answer: refused, timed out, broke off, or answered 5xx. Worth another try.
    #[error("the daemon does not answer: {0}")]
    Unreachable(String),
    /// It understood and refused.
    #[error("the daemon refused with {code}: {message}")]
    Refused {
        /// Code of the catalogue, or the HTTP status.
        code: String,
        /// Its words.
        message: String,
    },
    /// It cannot use what was sent; every daemon would say so.
    #[error("the daemon rejected the request with {code}: {message}")]
    Rejected {
        /// Code of the catalogue, or the HTTP status.
        code: String,
        /// Its words.
        message: String,
    },
    /// It does not know the call: not one of ours.
    #[error("the daemon does not know this call")]
    Unknown,
}

/// The calls. Each has a deadline of its own.
#[async_trait]
pub trait Daemons: Send + Sync {
    /// Gives the pod to an owner.
    async fn claim(&self, at: &DaemonAddress, request: &ClaimRequest) -> Result<ClaimStatus, DaemonError>;
    /// State of the claim's entrypoint: answered when it has ended, or after `wait`.
    async fn entrypoint(&self, at: &DaemonAddress, wait: Duration) -> Result<EntrypointStatus, DaemonError>;
    /// Sets all tasks of the executor; it answers with their state.
    async fn set_tasks(&self, at: &DaemonAddress, tasks: &[Task]) -> Result<Vec<Task>, DaemonError>;
    /// State of all tasks: at once without `seen`, else when it is another than that, or after `wait`.
    async fn tasks(&self, at: &DaemonAddress, seen: Option<&str>, wait: Duration) -> Result<TaskList, DaemonError>;
}
