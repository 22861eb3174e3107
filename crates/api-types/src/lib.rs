//! Every type that crosses a process boundary: the custom resources, the lifecycle, execd and
//! task-executor wires, the names they agree on, the error catalogue, and the signatures between
//! the platform and the daemons in a pod. No I/O.

#[cfg(feature = "auth")]
pub mod auth;
#[cfg(feature = "kube")]
pub mod crd;
pub mod errors;
pub mod execd;
pub mod explain;
pub mod ids;
pub mod lifecycle;
pub mod names;
pub mod quantity;
pub mod tasks;

pub use errors::{ErrorBody, ErrorCode};
