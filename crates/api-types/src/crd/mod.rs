//! The custom resources of group `sandbox.opensandbox.io/v1alpha1`, and what is read from pod templates.
//!
//! The CRD manifests are generated from these types. Names, types, defaults and printer columns
//! are those that OpenSandbox publishes; members of ours are marked so, and older readers pass over them.

mod batch;
mod conditions;
mod daemons;
mod pool;
mod raw;
mod snapshot;

pub use batch::{
    BatchPhase, BatchSandbox, BatchSandboxSpec, BatchSandboxStatus, ClaimSpec, Grant, GrantState, PodNames, TaskSpec,
    TaskTemplate, Termination,
};
pub use conditions::{Condition, ConditionStatus, set_condition};
pub use daemons::{Daemons, keyed_template};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
pub use pool::{CapacitySpec, Pool, PoolSpec, PoolStatus, RecycleStrategy, RecycleType, ScaleStrategy, UpdateStrategy};
pub use raw::Raw;
pub use snapshot::{SandboxSnapshot, SandboxSnapshotSpec, SandboxSnapshotStatus, SnapshotContainer, SnapshotPhase};

/// The CRDs, as `kubectl apply` takes them.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![BatchSandbox::crd(), Pool::crd(), SandboxSnapshot::crd()]
}
