//! `GET /sandboxes/{id}/explain`: where a sandbox's time went, what it waits for, and how it ended.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::SandboxId;
use crate::lifecycle::SandboxStatus;

/// A sandbox, explained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Id of the sandbox.
    pub id: SandboxId,
    /// State; `Terminated` when only its events are left.
    pub status: SandboxStatus,
    /// Where it comes from: `pool` or `image`.
    pub source: String,
    /// Pool or image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What has happened, oldest first.
    pub timeline: Vec<Step>,
    /// What it waits for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// The pool, while it is one of a pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolFigures>,
    /// The pod, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodFacts>,
    /// How it ended, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obituary: Option<Obituary>,
    /// What Kubernetes recorded of it and its pod, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<RecordedEvent>,
}

/// One thing that has happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// `accepted`, `queued`, `created`, `scheduled`, `pulled`, `started`, `ready`, `granted`, `claimed`, `execd`,
    /// `deleted` or `ended`.
    pub name: String,
    /// When.
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// Whether `at` is known to a whole second only, so that a short step may look instant or long.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub whole_second: bool,
    /// Milliseconds since the step before; absent for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<f64>,
    /// In words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What a sandbox waits for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// One word: `Controller`, `PoolFull`, `PoolPending`, `PodCreate`, `Scheduling`, `ImagePull`, `Starting`, `Claim`.
    #[serde(rename = "for")]
    pub what: String,
    /// Why, in one sentence.
    pub why: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub since: Option<Timestamp>,
}

/// Figures of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolFigures {
    /// Name.
    pub name: String,
    /// Pods.
    pub total: i32,
    /// Pods held by sandboxes.
    pub allocated: i32,
    /// Ready pods that nobody holds.
    pub available: i32,
    /// Most pods it may have.
    pub max: i32,
    /// Conditions that hold, as `reason: message`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<String>,
}

/// Facts about a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodFacts {
    /// Name.
    pub name: String,
    /// UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// Node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
}

/// How a sandbox ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Obituary {
    /// One word: `Deleted`, `Expired`, or the reason of the failure.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub at: Option<Timestamp>,
    /// How the sandbox container ended, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

/// What Kubernetes recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordedEvent {
    /// When, for the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub at: Option<Timestamp>,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Kind and name of what it is about.
    pub object: String,
    /// One word.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// How often.
    pub count: i32,
}
