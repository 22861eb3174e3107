//! The sandbox resource: one file per verb, and what the verbs share.

pub mod create;
pub mod delete;
pub mod diagnosis;
pub mod diagnostics;
pub mod endpoints;
pub mod events;
pub mod explain;
pub mod facts;
pub mod find;
pub mod get;
pub mod idempotency;
pub mod list;
pub mod metadata;
pub mod object;
pub mod refused;
pub mod renew;
pub mod side;
pub mod state;
pub mod template;
pub mod validate;
pub mod view;
pub mod volumes;
pub mod wait;
pub mod watch;
