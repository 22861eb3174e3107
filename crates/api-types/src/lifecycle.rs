//! The lifecycle wire: what the published SDKs send to the server and read from it.
//!
//! Absent members are omitted, never null: the published Python client fails on a null.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::ids::SandboxId;

/// Key of [`CreateSandboxRequest::extensions`] that names a pool.
pub const EXTENSION_POOL_REF: &str = "poolRef";
/// Prefix of the extensions that are stored and given back.
pub const EXTENSION_ECHO_PREFIX: &str = "opensandbox.extensions.";

/// `POST /sandboxes`. Unknown members are ignored, as the published server does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateSandboxRequest {
    /// Image; ignored with a pool, which has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSpec>,
    /// Snapshot to restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<String>,
    /// Template to start from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_id: Option<String>,
    /// Operating system and architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Seconds to live, at least 60 with the published server; absent is for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60))]
    pub timeout: Option<i64>,
    /// Limits by resource name, e.g. `{"cpu":"500m","memory":"512Mi"}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_limits: Option<BTreeMap<String, String>>,
    /// Requests by resource name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_requests: Option<BTreeMap<String, String>>,
    /// Environment of the sandbox; a null value is an empty string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<BTreeMap<String, Option<String>>>,
    /// Labels of the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// Hooks run by execd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<serde_json::Value>,
    /// Program and arguments to start in the sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub entrypoint: Option<Vec<String>>,
    /// Egress rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_policy: Option<serde_json::Value>,
    /// Credential proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_proxy: Option<CredentialProxy>,
    /// Ask for an access token on every endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure_access: Option<bool>,
    /// Volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<Vec<serde_json::Value>>,
    /// Further wishes; `poolRef` takes the sandbox from a pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<BTreeMap<String, String>>,
}

/// An image and how to get it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageSpec {
    /// Image reference.
    pub uri: String,
    /// Registry account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<ImageAuth>,
}

/// A registry account. Never logged.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageAuth {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
}

impl std::fmt::Debug for ImageAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageAuth").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Where the sandbox's programs run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Platform {
    /// `linux` or `windows`.
    pub os: String,
    /// `amd64` or `arm64`.
    pub arch: String,
}

/// Switch of the credential proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CredentialProxy {
    /// Whether it is wanted.
    #[serde(default)]
    pub enabled: bool,
}

/// Answer to a create: status 202.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateSandboxResponse {
    /// Id of the sandbox.
    pub id: SandboxId,
    /// State.
    pub status: SandboxStatus,
    /// When it was made.
    #[schemars(with = "String")]
    pub created_at: Timestamp,
    /// Entrypoint; always there, as published parsers need it.
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// Labels of the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// Stored extensions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<BTreeMap<String, String>>,
    /// Platform asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub expires_at: Option<Timestamp>,
    /// Ours: execd's endpoint with its headers, which saves the client a look-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execd: Option<Endpoint>,
    /// Ours: what was asked for and could not take effect, e.g. an image with a pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnings: Option<Vec<String>>,
}

/// A sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sandbox {
    /// Id.
    pub id: SandboxId,
    /// State.
    pub status: SandboxStatus,
    /// When it was made.
    #[schemars(with = "String")]
    pub created_at: Timestamp,
    /// Entrypoint; always there.
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// Image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSpec>,
    /// Snapshot it was restored from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<String>,
    /// Labels of the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// Stored extensions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<BTreeMap<String, String>>,
    /// Platform asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub expires_at: Option<Timestamp>,
    /// The pool it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocation: Option<AllocationSummary>,
}

/// State of a sandbox and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxStatus {
    /// `Pending`, `Running`, `Pausing`, `Paused`, `Resuming`, `Stopping`, `Terminated` or `Failed`.
    pub state: String,
    /// One word for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// One sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When the state changed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub last_transition_at: Option<Timestamp>,
}

/// How a sandbox was allocated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AllocationSummary {
    /// Always `pool`.
    pub mode: String,
    /// The pool.
    pub pool_ref: String,
    /// Always `allocated`.
    pub state: String,
}

/// Where a port of a sandbox is reached, and what to send there.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Endpoint {
    /// `host:port[/path]` without a scheme.
    pub endpoint: String,
    /// Headers to send with every request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, String>>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("endpoint", &self.endpoint)
            .field("headers", &self.headers.as_ref().map(|h| h.keys().collect::<Vec<_>>()))
            .finish()
    }
}

/// A page of sandboxes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ListSandboxesResponse {
    /// The sandboxes of the page.
    pub items: Vec<Sandbox>,
    /// Which page of how many.
    pub pagination: PaginationInfo,
}

/// Which page of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PaginationInfo {
    /// From 1.
    pub page: u32,
    /// 1 to 200.
    pub page_size: u32,
    /// Items in all pages.
    pub total_items: u64,
    /// Pages.
    pub total_pages: u64,
    /// Whether another page follows.
    pub has_next_page: bool,
}

/// `POST /sandboxes/{id}/renew-expiration`, and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RenewExpiration {
    /// The new end; absolute, in the future.
    #[schemars(with = "String")]
    pub expires_at: Timestamp,
}

/// Sizes of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolCapacity {
    /// Most warm pods at rest.
    #[schemars(range(min = 0))]
    pub buffer_max: i32,
    /// Fewest warm pods at rest.
    #[schemars(range(min = 0))]
    pub buffer_min: i32,
    /// Most pods in all.
    #[schemars(range(min = 0))]
    pub pool_max: i32,
    /// Fewest pods in all.
    #[schemars(range(min = 0))]
    pub pool_min: i32,
}

/// `POST /pools`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreatePoolRequest {
    /// Name: a DNS label.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Pod template.
    #[serde(deserialize_with = "object")]
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub template: serde_json::Value,
    /// Sizes.
    pub capacity_spec: PoolCapacity,
}

/// Any JSON object.
fn object<'de, D: Deserializer<'de>>(deserializer: D) -> Result<serde_json::Value, D::Error> {
    serde_json::Map::deserialize(deserializer).map(serde_json::Value::Object)
}

/// `PUT /pools/{name}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpdatePoolRequest {
    /// Sizes.
    pub capacity_spec: PoolCapacity,
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolResponse {
    /// Name.
    pub name: String,
    /// Sizes.
    pub capacity_spec: PoolCapacity,
    /// How it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<PoolStatusSummary>,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub created_at: Option<Timestamp>,
}

/// Counts of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolStatusSummary {
    /// Pods.
    pub total: i32,
    /// Pods held by sandboxes.
    pub allocated: i32,
    /// Ready pods nobody holds.
    pub available: i32,
    /// Revision of the template.
    pub revision: String,
}

/// All pools.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ListPoolsResponse {
    /// The pools.
    pub items: Vec<PoolResponse>,
}
