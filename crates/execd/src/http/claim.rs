//! `/v1/claim`: the platform gives this pod to one sandbox, and asks how its entrypoint fares.

use std::time::Duration;

use api_types::auth::Verb;
use api_types::execd::{ClaimRequest, ClaimStatus, EntrypointStatus};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use http::{HeaderMap, Uri};

use super::guard::signed;
use super::request::{Query, bytes, parse};
use super::{ApiError, Shared};
use crate::claim::no_entrypoint;

/// Longest wait of one call.
pub const LONGEST_WAIT: u64 = 55;

/// `POST /v1/claim`.
pub async fn claim(State(app): State<Shared>, headers: HeaderMap, body: Body) -> Result<Json<ClaimStatus>, ApiError> {
    let body = bytes(body).await?;
    signed(&app, Verb::Claim, &body, &headers)?;
    let request: ClaimRequest = parse(&body)?;
    Ok(Json(app.claims.claim(&request, &app.base, &app.engine)?))
}

/// `GET /v1/claim`.
pub async fn status(State(app): State<Shared>) -> Json<ClaimStatus> {
    Json(app.claims.status())
}

/// `GET /v1/claim/entrypoint?wait=SECONDS`.
pub async fn entrypoint(
    State(app): State<Shared>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Json<EntrypointStatus>, ApiError> {
    signed(&app, Verb::EntrypointStatus, b"", &headers)?;
    let wait = wait(&Query::of(&uri)?)?;
    Ok(Json(match app.claims.entrypoint() {
        Some(entrypoint) => entrypoint.wait(wait).await,
        None => no_entrypoint(),
    }))
}

/// The `wait` of a query, within its bound.
pub fn wait(query: &Query) -> Result<Duration, ApiError> {
    Ok(Duration::from_secs(query.number("wait")?.unwrap_or(0).min(LONGEST_WAIT)))
}
