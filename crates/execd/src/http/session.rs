//! `/session`: shells that stay.

use std::path::PathBuf;

use api_types::ErrorCode;
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};

use super::command::{directory, events, form, shell, timeout};
use super::request::{Query, json, json_or_default};
use super::{ApiError, App, Shared};
use crate::session::{Program, Request, Session, SessionError};
use crate::stream::{self, Cursor};

#[derive(Default, Deserialize)]
pub struct Create {
    cwd: Option<String>,
    envs: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Serialize)]
pub struct Created {
    session_id: String,
}

/// How a session is.
#[derive(Serialize)]
pub struct Described {
    session_id: String,
    cwd: String,
    /// Id of the execution that it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    running: Option<String>,
}

impl Described {
    fn of(session: &Session) -> Self {
        let status = session.status();
        let cwd = status.cwd.to_string_lossy().into_owned();
        Self { session_id: session.id.clone(), cwd, running: status.running }
    }
}

#[derive(Deserialize)]
pub struct RunInSession {
    /// The command; `code` in execd before 1.0.9.
    #[serde(alias = "code")]
    command: Option<String>,
    cwd: Option<String>,
    /// Milliseconds; `timeout_ms` in execd before 1.0.9.
    #[serde(alias = "timeout_ms")]
    timeout: Option<i64>,
}

impl From<SessionError> for ApiError {
    fn from(error: SessionError) -> Self {
        let code = match &error {
            SessionError::TooMany(_) => ErrorCode::TooManySessions,
            SessionError::Unknown(_) => ErrorCode::ContextNotFound,
            SessionError::Busy(_) => ErrorCode::SessionBusy,
            SessionError::Engine(_) => ErrorCode::TooManyExecutions,
            SessionError::Shell(_) => ErrorCode::RuntimeError,
        };
        Self::new(code, error.to_string())
    }
}

/// A directory that is made if it is missing.
pub fn home(app: &App, cwd: Option<&str>, env: &crate::envs::Env) -> Result<PathBuf, ApiError> {
    let Some(cwd) = cwd.filter(|cwd| !cwd.is_empty()) else { return Ok(app.cwd.clone()) };
    let path = crate::paths::directory_path(cwd, env, &app.cwd).map_err(|e| ApiError::invalid(format!("cwd: {e}")))?;
    std::fs::create_dir_all(&path).map_err(|e| ApiError::of_io(&path, &e))?;
    directory(app, cwd, env)
}

/// `POST /session`.
pub async fn create(State(app): State<Shared>, body: Body) -> Result<Json<Created>, ApiError> {
    let request: Create = json_or_default(body).await?;
    let own = request.envs.unwrap_or_default();
    crate::envs::validate(&own).map_err(|e| ApiError::invalid(format!("envs: {e}")))?;
    let mut env = app.command_env();
    crate::envs::overlay(&mut env, &own);
    let cwd = home(&app, request.cwd.as_deref(), &env)?;
    let (path, bash) = shell(&env);
    let id = uuid::Uuid::new_v4().to_string();
    let session = app.sessions.create(id, Program { path, bash }, cwd, own)?;
    Ok(Json(Created { session_id: session.id.clone() }))
}

/// `GET /session`.
pub async fn list(State(app): State<Shared>) -> Json<Vec<Described>> {
    Json(app.sessions.list().iter().map(|session| Described::of(session)).collect())
}

/// `GET /session/{id}`.
pub async fn get(State(app): State<Shared>, Path(id): Path<String>) -> Result<Json<Described>, ApiError> {
    Ok(Json(Described::of(&*app.sessions.find(&id)?)))
}

/// `POST /session/{id}/run`.
pub async fn run(
    State(app): State<Shared>,
    Path(id): Path<String>,
    uri: Uri,
    body: Body,
) -> Result<Response, ApiError> {
    let form = form(&Query::of(&uri)?)?;
    let request: RunInSession = json(body).await?;
    let session = app.sessions.find(&id)?;
    let command = request.command.filter(|command| !command.is_empty());
    let command = command.ok_or_else(|| ApiError::invalid("command is required"))?;
    if command.contains('\0') {
        return Err(ApiError::invalid("the command contains a zero byte"));
    }
    let env = app.command_env();
    let cwd = request.cwd.as_deref().filter(|cwd| !cwd.is_empty());
    let cwd = cwd.map(|cwd| directory(&app, cwd, &env)).transpose()?;
    let request = Request { command, cwd, timeout: timeout(request.timeout)?, env };
    let execution = session.run(request, &app.engine)?;
    Ok(events(Body::from_stream(stream::live(execution, Cursor::default(), form))))
}

/// `DELETE /session/{id}`.
pub async fn delete(State(app): State<Shared>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    app.sessions.delete(&id).await?;
    Ok(StatusCode::OK)
}
