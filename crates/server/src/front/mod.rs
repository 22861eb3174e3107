//! The front door: request ids, keys, bodies and queries, before any handler.

pub mod auth;
pub mod body;
pub mod observe;
pub mod path;
pub mod query;
pub mod rate;
pub mod request_id;
pub mod unmatched;
pub mod via;
