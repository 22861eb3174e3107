//! `DELETE /command?id=`.

use api_types::ErrorCode;
use axum::extract::State;
use http::{StatusCode, Uri};

use super::super::request::Query;
use super::super::{ApiError, Shared};
use super::find;
use crate::exec::{GRACE, Stop};

/// The handler: TERM to the group, KILL after the grace; answers when it has ended.
pub async fn interrupt(State(app): State<Shared>, uri: Uri) -> Result<StatusCode, ApiError> {
    let query = Query::of(&uri)?;
    let execution = find(&app, query.required("id")?)?;
    if execution.stop(Stop { grace: GRACE }).await {
        return Ok(StatusCode::OK);
    }
    Err(ApiError::new(ErrorCode::RuntimeError, format!("command session {} is not running", execution.id.as_str())))
}
