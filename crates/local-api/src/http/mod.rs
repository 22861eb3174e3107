//! The wire: from an HTTP request to a verb and back.

pub(crate) mod body;
pub(crate) mod query;
pub(crate) mod render;
pub(crate) mod route;
mod service;
mod streams;

pub use body::ApiBody;
pub use service::ApiService;
