//! The lifecycle server: a REST API over the Kubernetes API.
//!
//! It writes one object to create a sandbox, reads from two watches, and waits on their events; it
//! never knows which Kubernetes it talks to. Several replicas share nothing but Kubernetes.

mod app;
mod config;
mod error;
mod front;
mod keys;
mod labels;
pub mod openapi;
mod pools;
mod proxy;
mod routes;
mod sandboxes;
mod serve;
mod store;

pub use config::{Config, EndpointMode, Limits};
pub use error::ApiError;
pub use keys::ApiKeys;
pub use serve::{ServeError, Server};
