//! Rooms that are not built yet: their routes answer with a typed 501.

use api_types::ErrorCode;
use axum::Router;
use axum::routing::any;

use super::{ApiError, Shared};

/// Path and what to use meanwhile.
const ROOMS: [(&str, &str); 16] = [
    ("/session", SESSION),
    ("/session/{*rest}", SESSION),
    ("/pty", PTY),
    ("/pty/{*rest}", PTY),
    ("/code", CODE),
    ("/code/{*rest}", CODE),
    ("/v1/isolated", ISOLATED),
    ("/v1/isolated/{*rest}", ISOLATED),
    ("/v1/filesystem/{*rest}", FILESYSTEM),
    ("/v1/reset", "this execd takes no reset; delete the pod instead"),
    ("/metrics/watch", "this execd has no stream of metrics; ask GET /metrics again"),
    ("/metrics/prometheus", "this execd has no Prometheus metrics; use GET /metrics"),
    ("/ports", "this execd does not list ports; run a command instead"),
    ("/ports/{*rest}", "this execd does not list ports; run a command instead"),
    ("/files/watch", "this execd does not watch files; run a command instead"),
    ("/files/checksum", "this execd makes no checksums; run a command instead"),
];
const SESSION: &str = "this execd has no shell sessions; use POST /command";
const PTY: &str = "this execd has no terminals; use POST /command";
const CODE: &str = "this execd has no code contexts; use POST /command";
const ISOLATED: &str = "this execd has no isolated sessions; use POST /command";
const FILESYSTEM: &str = "this execd has no files under another identity; use /files and set the owner";

/// Adds the routes.
pub fn add(router: Router<Shared>) -> Router<Shared> {
    ROOMS.into_iter().fold(router, |router, (path, text)| {
        router.route(path, any(move || async move { ApiError::new(ErrorCode::ExecdNotSupported, text) }))
    })
}
