//! `/v1/claim` and `/v1/reset`, for pods whose sandbox container has no execd.

use std::time::Duration;

use api_types::ErrorCode;
use api_types::auth::Verb;
use api_types::execd::{ClaimRequest, ClaimStatus, EntrypointState, EntrypointStatus};
use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use http::HeaderMap;

use super::App;
use super::guard::{admit, body, json, wait};
use crate::claim::entrypoint_status;
use crate::error::ApiError;

/// Longest time a reset waits for the tasks to end.
const RESET_DEADLINE: Duration = Duration::from_secs(25);

fn entrypoint_of(app: &App) -> EntrypointStatus {
    let status = app.manager.entrypoint();
    let failed = status.as_ref().and_then(|s| s.terminated.as_ref()).is_some_and(|t| t.exit_code != 0);
    entrypoint_status(status.as_ref(), failed.then(|| app.manager.entrypoint_tail()).flatten())
}

/// `POST /v1/claim`.
pub async fn claim(State(app): State<App>, headers: HeaderMap, raw: Body) -> Result<Json<ClaimStatus>, ApiError> {
    let raw = body(raw).await?;
    admit(&app, Verb::Claim, &raw, &headers)?;
    let request: ClaimRequest = json(&raw)?;
    let work = async move {
        app.manager.claims().claim(&request)?;
        app.manager.start_entrypoint(&request.entrypoint).await?;
        let told = entrypoint_of(&app);
        let entrypoint = (told.state != EntrypointState::None).then_some(told);
        Ok(ClaimStatus { entrypoint, ..app.manager.claims().status() })
    };
    tokio::spawn(work).await.map_err(|e| ApiError::internal(e.to_string()))?.map(Json)
}

/// `GET /v1/claim`: nothing secret, so it is open.
pub async fn status(State(app): State<App>) -> Json<ClaimStatus> {
    Json(app.manager.claims().status())
}

/// `GET /v1/claim/entrypoint?wait=SECONDS`.
pub async fn entrypoint(
    State(app): State<App>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Json<EntrypointStatus>, ApiError> {
    admit(&app, Verb::EntrypointStatus, b"", &headers)?;
    app.manager.wait_entrypoint(wait(query.as_deref())?.unwrap_or_default()).await;
    Ok(Json(entrypoint_of(&app)))
}

/// `POST /v1/reset`: every task is stopped and removed, then the owner is forgotten. What the sandbox
/// container's files and processes are is not known here: the container must be restarted and verified.
pub async fn reset(State(app): State<App>, headers: HeaderMap, raw: Body) -> Result<Json<ClaimStatus>, ApiError> {
    let raw = body(raw).await?;
    admit(&app, Verb::Reset, &raw, &headers)?;
    if !app.manager.clear(RESET_DEADLINE).await {
        let message = "the tasks did not end in time; the pod keeps its owner, ask again";
        return Err(ApiError::new(ErrorCode::RequestTimeout, message));
    }
    app.manager.claims().forget()?;
    Ok(Json(app.manager.claims().status()))
}
