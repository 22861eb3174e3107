//! What the platform's own programs share to be watched and stopped: an admin listener with health, readiness
//! and metrics, logs, and the signal that ends a program.
//!
//! A program makes one [`Registry`], lets its parts register their metrics, makes one [`Readiness`] with a check
//! for each thing it waits for, and gives both to [`admin::serve`].

pub mod admin;
mod api_requests;
pub mod buckets;
mod causes;
#[cfg(feature = "kube")]
pub mod kubernetes;
pub mod logs;
mod readiness;
pub mod signals;

pub use api_requests::{ApiRequests, Counted};
pub use causes::chain;
pub use prometheus_client;
pub use prometheus_client::registry::Registry;
pub use readiness::{Check, Readiness};
