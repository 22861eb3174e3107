//! Rooms that are not built yet: their routes answer with a typed 501.

use api_types::ErrorCode;
use axum::Router;
use axum::routing::any;

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

/// Adds the routes.
pub fn add(router: Router<Shared>) -> Router<Shared> {
    ROOMS.into_iter().fold(router, |router, (path, text)| {
        router.route(path, any(move || async move { ApiError::new(ErrorCode::ExecdNotSupported, text) }))
    })
}
