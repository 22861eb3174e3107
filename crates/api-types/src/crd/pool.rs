//! Pool: warm pods that nobody's code has touched.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, Raw};

fn is_zero_i64(n: &i64) -> bool {
    *n == 0
}

fn is_zero_i32(n: &i32) -> bool {
    *n == 0
}

/// What is wanted of a Pool.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "sandbox.opensandbox.io",
    version = "v1alpha1",
    kind = "Pool",
    plural = "pools",
    singular = "pool",
    namespaced,
    status = "PoolStatus",
    derive = "PartialEq",
    doc = "Warm pods that nobody's code has touched.",
    printcolumn = r#"{"name":"TOTAL","type":"integer","description":"Pods.","jsonPath":".status.total"}"#,
    printcolumn = r#"{"name":"ALLOCATED","type":"integer","description":"Pods held by sandboxes.","jsonPath":".status.allocated"}"#,
    printcolumn = r#"{"name":"AVAILABLE","type":"integer","description":"Ready pods nobody holds.","jsonPath":".status.available"}"#,
    printcolumn = r#"{"name":"UPDATED","type":"integer","description":"Pods of the current revision.","jsonPath":".status.updated"}"#,
    printcolumn = r#"{"name":"AGE","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct PoolSpec {
    /// Template of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Raw>,
    /// How many.
    pub capacity_spec: CapacitySpec,
    /// How fast pods are added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_strategy: Option<ScaleStrategy>,
    /// How fast pods are replaced when the template changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_strategy: Option<UpdateStrategy>,
    /// What happens to a pod that comes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recycle_strategy: Option<RecycleStrategy>,
}

/// Sizes of a pool, in pods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CapacitySpec {
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

/// How fast pods are added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScaleStrategy {
    /// Pods that may be unready at once: a number, or a percentage of the wanted size; absent is 25%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<IntOrString>,
}

/// How fast pods are replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpdateStrategy {
    /// Pods that may be unready at once: a number, or a percentage of the pool; absent is 25%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<IntOrString>,
}

/// What happens to a pod that comes back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecycleStrategy {
    /// How.
    #[serde(rename = "type", default)]
    pub kind: RecycleType,
}

/// How a pod that comes back is made fit for the next owner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RecycleType {
    /// It is deleted, and a new one made.
    #[default]
    Delete,
    /// Its containers are restarted, and the reset verified.
    Restart,
    /// It is given out again as it is.
    Noop,
}

/// What is known of a Pool.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolStatus {
    /// Generation of the spec this status is about.
    #[serde(default, skip_serializing_if = "is_zero_i64")]
    pub observed_generation: i64,
    /// Revision of the template.
    pub revision: String,
    /// Pods that are not being deleted.
    pub total: i32,
    /// Pods held by sandboxes.
    pub allocated: i32,
    /// Ready pods nobody holds.
    pub available: i32,
    /// Pods of the current revision.
    #[serde(default, skip_serializing_if = "is_zero_i32")]
    pub updated: i32,
    /// Ours: observations, keyed by type: `Ready`, `PodsFailing`, `InvalidSpec`, `AtCapacity`,
    /// `RecycleUnsupported`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
