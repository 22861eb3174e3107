//! `GET /metrics`: five numbers of the sandbox, at once.

use std::time::Instant;

use api_types::execd::Metrics;
use axum::Json;
use axum::extract::State;
use jiff::Timestamp;

use super::Shared;

/// The handler.
pub async fn once(State(app): State<Shared>) -> Json<Metrics> {
    Json(app.meter.measure(Instant::now(), Timestamp::now()))
}
