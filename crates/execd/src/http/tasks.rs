//! `/v1/tasks`: task-executor hands its tasks over, from inside the pod only.

use std::net::SocketAddr;
use std::time::Duration;

use api_types::ErrorCode;
use api_types::auth::Verb;
use api_types::tasks::{ProcessStatus, TaskHandOver};
use axum::Json;
use axum::body::Body;
use axum::extract::{ConnectInfo, Path, State};
use http::Uri;

use super::claim::{LONGEST_WAIT, wait};
use super::guard::verify;
use super::request::{Query, json};
use super::{ApiError, Shared};

/// Grace of a stop that names none.
const DEFAULT_GRACE: u64 = 10;

fn local(peer: SocketAddr) -> Result<(), ApiError> {
    if peer.ip().is_loopback() {
        return Ok(());
    }
    Err(ApiError::new(ErrorCode::BadSignature, "tasks are taken from inside the pod only; ask task-executor"))
}

/// `POST /v1/tasks`.
pub async fn start(
    State(app): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    body: Body,
) -> Result<Json<ProcessStatus>, ApiError> {
    local(peer)?;
    let over: TaskHandOver = json(body).await?;
    verify(&app, Verb::SetTasks, over.signed_body.as_bytes(), over.signature.as_deref())?;
    Ok(Json(app.tasks.start(&over, &app.sandbox_env(), &app.engine)?))
}

/// `GET /v1/tasks/{handle}?wait=SECONDS`.
pub async fn status(
    State(app): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(handle): Path<String>,
    uri: Uri,
) -> Result<Json<ProcessStatus>, ApiError> {
    local(peer)?;
    let wait = wait(&Query::of(&uri)?)?;
    Ok(Json(app.tasks.status(&handle, wait).await?))
}

/// `DELETE /v1/tasks/{handle}?grace=SECONDS`.
pub async fn stop(
    State(app): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(handle): Path<String>,
    uri: Uri,
) -> Result<Json<ProcessStatus>, ApiError> {
    local(peer)?;
    let grace = Query::of(&uri)?.number("grace")?.unwrap_or(DEFAULT_GRACE).min(LONGEST_WAIT);
    Ok(Json(app.tasks.stop(&handle, Duration::from_secs(grace)).await?))
}
