//! The lifecycle server: a REST API over the Kubernetes API.
//!
//! It writes one object to create a sandbox, reads from two watches, and waits on their events; it
//! never knows which Kubernetes it talks to. Several replicas share nothing but Kubernetes.

mod app;
mod config;
mod error;
mod front;
mod gateway;
mod health;
mod keys;
mod labels;
mod metrics;
pub mod openapi;
mod pools;
mod proxy;
mod reload;
mod routes;
mod sandboxes;
mod serve;
pub mod settings;
mod space;
mod store;
mod streams;
pub mod tenants;
mod tls;

pub use config::{Config, EndpointMode, Limits};
pub use error::ApiError;
pub use front::rate::Rate;
pub use gateway::{Gateway, Route, Signer};
pub use keys::{ApiKeys, Caller, Scope};
pub use serve::{ServeError, Server};
pub use tls::{Tls, TlsError};

/// How the server names itself to Kubernetes.
pub const USER_AGENT: &str = concat!("opensandbox-server/", env!("CARGO_PKG_VERSION"));
