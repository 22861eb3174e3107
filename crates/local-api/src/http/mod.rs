//! The wire: from an HTTP request to a verb and back.

pub(crate) mod body;
mod identity;
pub(crate) mod query;
pub(crate) mod render;
pub(crate) mod route;
pub(crate) mod serve;
mod service;
mod streams;

pub use body::ApiBody;
pub use identity::{Identity, IdentityError};
pub use serve::ServeError;
pub use service::ApiService;
