//! `/pty`: terminals.

mod socket;

use std::path::PathBuf;

use api_types::ErrorCode;
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};

pub use socket::connect;

use super::command::shell;
use super::request::json_or_default;
use super::session::home;
use super::{ApiError, Shared};
use crate::pty::{Create, PtyError, Terminal};
use crate::session::Program;

#[derive(Default, Deserialize)]
pub struct CreateRequest {
    cwd: Option<String>,
    command: Option<String>,
    cols: Option<u16>,
    rows: Option<u16>,
}

#[derive(Serialize)]
pub struct Created {
    session_id: String,
}

/// How a terminal is.
#[derive(Serialize)]
pub struct Described {
    session_id: String,
    running: bool,
    /// Offset after the last byte it wrote.
    output_offset: u64,
}

impl Described {
    fn of(terminal: &Terminal) -> Self {
        let (running, output_offset) = (terminal.running(), terminal.journal.end());
        Self { session_id: terminal.id.clone(), running, output_offset }
    }
}

impl From<PtyError> for ApiError {
    fn from(error: PtyError) -> Self {
        let code = match &error {
            PtyError::TooMany(_) => ErrorCode::TooManySessions,
            PtyError::Unknown(_) => ErrorCode::ContextNotFound,
            PtyError::Connected => ErrorCode::AlreadyConnected,
            PtyError::Start(_) => ErrorCode::RuntimeError,
        };
        Self::new(code, error.to_string())
    }
}

/// `POST /pty`.
pub async fn create(State(app): State<Shared>, body: Body) -> Result<(StatusCode, Json<Created>), ApiError> {
    let request: CreateRequest = json_or_default(body).await?;
    let env = app.command_env();
    let cwd: PathBuf = home(&app, request.cwd.as_deref(), &env)?;
    let (path, bash) = shell(&env);
    let command = request.command.filter(|command| !command.is_empty());
    if command.as_deref().is_some_and(|command| command.contains('\0')) {
        return Err(ApiError::invalid("the command contains a zero byte"));
    }
    let size = match (request.cols, request.rows) {
        (None, None) => None,
        (Some(cols), Some(rows)) if cols > 0 && rows > 0 => Some((cols, rows)),
        _ => return Err(ApiError::invalid("give both cols and rows, each at least 1")),
    };
    let create = Create { program: Program { path, bash }, command, cwd, size };
    let terminal = app.terminals.create(uuid::Uuid::new_v4().to_string(), create)?;
    Ok((StatusCode::CREATED, Json(Created { session_id: terminal.id.clone() })))
}

/// `GET /pty`.
pub async fn list(State(app): State<Shared>) -> Json<Vec<Described>> {
    Json(app.terminals.list().iter().map(|terminal| Described::of(terminal)).collect())
}

/// `GET /pty/{id}`.
pub async fn get(State(app): State<Shared>, Path(id): Path<String>) -> Result<Json<Described>, ApiError> {
    Ok(Json(Described::of(&*app.terminals.find(&id)?)))
}

/// `DELETE /pty/{id}`.
pub async fn delete(State(app): State<Shared>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    app.terminals.delete(&id)?;
    Ok(StatusCode::OK)
}
