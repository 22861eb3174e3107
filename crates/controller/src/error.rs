//! Why the controller as a whole could not start or go on.

/// Why [`run`](crate::run) ended with an error.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// A watch ended although it restarts by itself.
    #[error("the watch on {kind} ended")]
    WatchEnded {
        /// What was watched.
        kind: String,
    },
    /// The configuration cannot be used.
    #[error("the configuration cannot be used: {0}")]
    Config(String),
    /// The leader's lease was lost; the process must not go on with what it believes.
    #[error("the leader lease {0} was lost")]
    LeaseLost(String),
}
