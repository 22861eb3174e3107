//! Conditions as OpenSandbox stores them: type, status, reason, message, time.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
}

/// One observation about an object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What is observed.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// One word for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// One sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When status, reason or message changed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
}

impl Condition {
    /// A condition that holds since `now`.
    pub fn holds(kind: &str, reason: &str, message: impl Into<String>, now: Time) -> Self {
        Self {
            kind: kind.to_owned(),
            status: ConditionStatus::True,
            reason: Some(reason.to_owned()),
            message: Some(message.into()),
            last_transition_time: Some(now),
        }
    }

    /// Whether it says the same as another, times apart.
    pub fn says_same(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.status == other.status
            && self.reason == other.reason
            && self.message == other.message
    }
}

/// Puts a condition into a list keyed by type; one that says the same keeps its time.
pub fn set_condition(list: &mut Vec<Condition>, new: Condition) {
    match list.iter_mut().find(|c| c.kind == new.kind) {
        Some(old) if old.says_same(&new) => {}
        Some(old) => *old = new,
        None => list.push(new),
    }
}
