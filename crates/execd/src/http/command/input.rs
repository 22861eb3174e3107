//! `POST /command/{id}/stdin?end=true`: bytes for a command's standard input.

use api_types::ErrorCode;
use axum::body::Body;
use axum::extract::{Path, State};
use http::{StatusCode, Uri};
use http_body_util::BodyExt;

use super::super::request::Query;
use super::super::{ApiError, Shared};
use super::find;

/// The handler. It waits while the program does not read.
pub async fn input(
    State(app): State<Shared>,
    Path(id): Path<String>,
    uri: Uri,
    mut body: Body,
) -> Result<StatusCode, ApiError> {
    let end = Query::of(&uri)?.get("end") == Some("true");
    let execution = find(&app, &id)?;
    let closed = || ApiError::new(ErrorCode::StdinClosed, "its standard input is closed; start it with stdin_open");
    let stdin = execution.stdin.clone().ok_or_else(closed)?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| ApiError::invalid(format!("the body could not be read: {e}")))?;
        let Ok(bytes) = frame.into_data() else { continue };
        tokio::select! {
            written = stdin.write(&bytes) => written.map_err(|_| closed())?,
            // A child of the program may hold the pipe and never read.
            _ = execution.ended() => return Err(closed()),
        }
    }
    if end {
        stdin.close().await;
    }
    Ok(StatusCode::OK)
}
