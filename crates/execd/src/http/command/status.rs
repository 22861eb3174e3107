//! `GET /command` and `GET /command/status/{id}`.

use api_types::execd::CommandStatus;
use axum::Json;
use axum::extract::{Path, State};
use http::Uri;

use super::super::request::Query;
use super::super::{ApiError, Shared};
use super::find;
use crate::exec::Execution;

/// `GET /command/status/{id}`.
pub async fn status(State(app): State<Shared>, Path(id): Path<String>) -> Result<Json<CommandStatus>, ApiError> {
    Ok(Json(CommandStatus { id: id.clone(), ..of(&*find(&app, &id)?) }))
}

/// `GET /command?running=true`: what runs, and what has run and is still readable.
pub async fn list(State(app): State<Shared>, uri: Uri) -> Result<Json<Vec<CommandStatus>>, ApiError> {
    let running = match Query::of(&uri)?.get("running") {
        None => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(_) => return Err(ApiError::invalid("running must be true or false")),
    };
    let all = app.engine.all();
    let wanted = all.iter().map(|execution| of(execution)).filter(|s| running.is_none_or(|r| r == s.running));
    Ok(Json(wanted.collect()))
}

fn of(execution: &Execution) -> CommandStatus {
    let outcome = execution.outcome();
    CommandStatus {
        id: execution.id.as_str().to_owned(),
        content: Some(execution.content.clone()).filter(|c| !c.is_empty()),
        running: outcome.is_none(),
        exit_code: outcome.as_ref().map(|o| o.wire_code()),
        error: outcome.as_ref().filter(|o| !o.success()).map(|o| o.details().join("; ")),
        started_at: Some(execution.started_at),
        finished_at: outcome.map(|o| o.finished_at),
    }
}
