//! The stream of an execution as the published SDKs read it: bare JSON objects, each followed by two
//! line feeds.

mod body;
mod json;
mod lines;

pub use body::{fixed, live};
pub use json::encode;
pub use lines::Lines;
