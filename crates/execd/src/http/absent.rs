//! Rooms that are not built yet: their routes answer with a typed 501.

use api_types::ErrorCode;
use axum::routing::{MethodRouter, any};

use super::{ApiError, Shared};

/// Path and what to use meanwhile.
const ROOMS: [(&str, &str); 5] = [
    ("/code", CODE),
    ("/code/{*rest}", CODE),
    ("/v1/isolated", ISOLATED),
    ("/v1/isolated/{*rest}", ISOLATED),
    ("/v1/reset", "this execd takes no reset; delete the pod instead"),
];
const CODE: &str = "this execd has no code contexts; use POST /command";
const ISOLATED: &str = "this execd has no isolated sessions; use POST /command";

/// Their routes.
pub fn rooms() -> impl Iterator<Item = (&'static str, MethodRouter<Shared>)> {
    ROOMS
        .into_iter()
        .map(|(path, text)| (path, any(move || async move { ApiError::new(ErrorCode::ExecdNotSupported, text) })))
}
