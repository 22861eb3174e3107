//! `/command`: run, status, logs, interrupt.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use api_types::ErrorCode;
use api_types::execd::{CommandStatus, RunCommandRequest};
use api_types::ids::ExecutionId;
use api_types::names::headers;
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, Uri, header};

use super::request::{Query, json};
use super::{ApiError, App, Shared};
use crate::envs::{self, Env};
use crate::exec::{Launch, Stop};
use crate::paths;
use crate::stream;
use crate::users::Users;

/// Time between TERM and KILL of an interrupt.
const INTERRUPT_GRACE: Duration = Duration::from_secs(3);
/// Bytes of a log in one answer.
const LOG_CHUNK: usize = 4 << 20;

/// `POST /command`.
pub async fn run(State(app): State<Shared>, body: Body) -> Result<Response, ApiError> {
    let request: RunCommandRequest = json(body).await?;
    let background = request.background.unwrap_or(false);
    let launch = plan(&app, &request)?;
    let id = ExecutionId::new(uuid::Uuid::new_v4().simple().to_string());
    let execution = app.engine.start(id, &launch)?;
    let body =
        if background { Body::from(stream::fixed(&execution)) } else { Body::from_stream(stream::live(execution)) };
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((StatusCode::OK, headers, body).into_response())
}

/// Decides what is run, or why not.
fn plan(app: &App, request: &RunCommandRequest) -> Result<Launch, ApiError> {
    let own = request.envs.clone().unwrap_or_default();
    envs::validate(&own).map_err(|e| ApiError::invalid(format!("envs: {e}")))?;
    let mut env = app.command_env();
    let credentials = match (number("uid", request.uid)?, number("gid", request.gid)?) {
        (None, None) => None,
        (None, Some(_)) => return Err(ApiError::invalid("gid needs uid")),
        (Some(uid), gid) => {
            let users = Users::load();
            if let Some(user) = users.user(uid) {
                let of_user = [("HOME", &user.home), ("USER", &user.name), ("LOGNAME", &user.name)];
                env.extend(of_user.map(|(name, value)| (name.into(), value.into())));
            }
            Some(users.credentials(uid, gid))
        }
    };
    envs::overlay(&mut env, &own);
    let cwd = request.cwd.as_deref().filter(|cwd| !cwd.is_empty()).map(|cwd| directory(app, cwd, &env)).transpose()?;
    let timeout = match request.timeout.unwrap_or(0) {
        0 => None,
        milliseconds => Some(Duration::from_millis(
            u64::try_from(milliseconds).map_err(|_| ApiError::invalid("timeout must not be negative"))?,
        )),
    };
    let (argv, content) = argv(request, &env)?;
    if argv.iter().any(|arg| arg.as_encoded_bytes().contains(&0)) {
        return Err(ApiError::invalid("the command contains a zero byte"));
    }
    let split = !request.background.unwrap_or(false);
    Ok(Launch { argv, env: env.into_iter().collect(), cwd, credentials, split, timeout, content })
}

fn number(name: &str, value: Option<i64>) -> Result<Option<u32>, ApiError> {
    let wrong = |_| ApiError::invalid(format!("{name} must be between 0 and {}", u32::MAX));
    value.map(u32::try_from).transpose().map_err(wrong)
}

fn directory(app: &App, cwd: &str, env: &Env) -> Result<PathBuf, ApiError> {
    let path = paths::directory_path(cwd, env, &app.cwd).map_err(|e| ApiError::invalid(format!("cwd: {e}")))?;
    match std::fs::metadata(&path) {
        Ok(meta) if meta.is_dir() => Ok(path),
        Ok(_) => Err(ApiError::invalid(format!("working directory is not a directory: {}", path.display()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Err(ApiError::invalid(format!("working directory does not exist: {}", path.display())))
        }
        Err(e) => Err(ApiError::invalid(format!("working directory {}: {e}", path.display()))),
    }
}

fn argv(request: &RunCommandRequest, env: &Env) -> Result<(Vec<OsString>, String), ApiError> {
    let command = request.command.as_deref().filter(|c| !c.is_empty());
    let argv = request.argv.as_deref().filter(|a| !a.is_empty());
    match (command, argv) {
        (Some(_), Some(_)) => Err(ApiError::invalid("give either command or argv, not both")),
        (None, None) => Err(ApiError::invalid("command is required; or give argv")),
        (None, Some([program, ..])) if program.is_empty() => Err(ApiError::invalid("argv[0] is empty")),
        (None, Some(argv)) => Ok((argv.iter().map(Into::into).collect(), argv.join(" "))),
        (Some(command), None) => {
            let shell = shell(env);
            Ok((vec![shell, "-c".into(), command.into()], command.to_owned()))
        }
    }
}

/// `bash` where the sandbox has it, else `sh`; starting fails where there is neither.
fn shell(env: &Env) -> OsString {
    let path = env.get(std::ffi::OsStr::new("PATH")).cloned().unwrap_or_default();
    let found = |name: &str| {
        let places = std::env::split_paths(&path).map(|dir| dir.join(name));
        places.into_iter().find(|p| nix::unistd::access(p, nix::unistd::AccessFlags::X_OK).is_ok() && p.is_file())
    };
    found("bash").or_else(|| found("sh")).map_or_else(|| "sh".into(), Into::into)
}

fn find(app: &App, id: &str) -> Result<std::sync::Arc<crate::exec::Execution>, ApiError> {
    let missing = || ApiError::new(ErrorCode::CommandNotFound, format!("command not found: {id}"));
    app.engine.find(&ExecutionId::new(id)).ok_or_else(missing)
}

/// `GET /command/status/{id}`.
pub async fn status(State(app): State<Shared>, Path(id): Path<String>) -> Result<Json<CommandStatus>, ApiError> {
    let execution = find(&app, &id)?;
    let outcome = execution.outcome();
    Ok(Json(CommandStatus {
        id,
        content: Some(execution.content.clone()).filter(|c| !c.is_empty()),
        running: outcome.is_none(),
        exit_code: outcome.as_ref().map(|o| o.wire_code()),
        error: outcome.as_ref().filter(|o| !o.success()).map(|o| o.details().join("; ")),
        started_at: Some(execution.started_at),
        finished_at: outcome.map(|o| o.finished_at),
    }))
}

/// `GET /command/{id}/logs?cursor=`: bytes from an absolute offset. A cursor before what is still held
/// begins there.
pub async fn logs(State(app): State<Shared>, Path(id): Path<String>, uri: Uri) -> Result<Response, ApiError> {
    let execution = find(&app, &id)?;
    let query = Query::of(&uri)?;
    let cursor = match query.get("cursor").map(str::parse::<i64>) {
        Some(Ok(negative)) if negative < 0 => return Err(ApiError::invalid("cursor must not be negative")),
        Some(Ok(cursor)) => cursor.cast_unsigned(),
        // As OpenSandbox does: what is no number is the beginning.
        Some(Err(_)) | None => 0,
    };
    let (bytes, next) = execution.journal.read_all(cursor, LOG_CHUNK);
    let next = next.max(cursor);
    let headers = [
        (header::CONTENT_TYPE.as_str(), "text/plain; charset=utf-8".to_owned()),
        (headers::TAIL_CURSOR, next.to_string()),
    ];
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value));
    let mut response = bytes.into_response();
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (header::HeaderName::try_from(name), header::HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

/// `DELETE /command?id=`.
pub async fn interrupt(State(app): State<Shared>, uri: Uri) -> Result<StatusCode, ApiError> {
    let query = Query::of(&uri)?;
    let id = query.required("id")?;
    let execution = find(&app, id)?;
    if execution.stop(Stop { grace: INTERRUPT_GRACE }).await {
        return Ok(StatusCode::OK);
    }
    Err(ApiError::new(ErrorCode::RuntimeError, format!("command session {id} is not running")))
}
