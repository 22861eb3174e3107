//! Deciding: pure functions over a snapshot of the world and a time. No I/O, no clock, no randomness.

pub mod batch;
mod batch_status;
pub mod conditions;
pub mod grants;
mod inherit;
pub mod merge;
pub mod obituary;
pub mod pool;
pub mod pool_plan;
pub mod tasks;
pub mod teardown;
pub mod template;

use api_types::crd::Termination;

/// Something people should read about an object, as a Kubernetes Event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Whether it is a warning.
    pub warning: bool,
    /// One word.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// How the object ended, where this is the last word about it.
    pub last: Option<Box<Termination>>,
}

impl Note {
    /// A warning.
    pub fn warning(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { warning: true, reason: reason.into(), message: message.into(), last: None }
    }

    /// News that is no warning.
    pub fn normal(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { warning: false, reason: reason.into(), message: message.into(), last: None }
    }
}
