//! `/getTasks`, `/setTasks`, `/tasks`.

use api_types::ErrorCode;
use api_types::auth::Verb;
use api_types::tasks::Task;
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::response::IntoResponse;
use http::{HeaderMap, StatusCode, header};

use super::App;
use super::guard::{admit, body, json, signature, wait};
use crate::error::ApiError;
use crate::manager::Authority;

/// `GET /getTasks?wait=SECONDS`. With `If-None-Match` it answers at once when there is news since then.
pub async fn list(
    State(app): State<App>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<impl IntoResponse, ApiError> {
    admit(&app, Verb::GetTasks, b"", &headers)?;
    if let Some(wait) = wait(query.as_deref())? {
        let seen = headers.get(header::IF_NONE_MATCH).and_then(|tag| tag.to_str().ok()?.trim_matches('"').parse().ok());
        app.manager.wait_change(seen, wait).await;
    }
    let (revision, tasks) = app.manager.list();
    Ok(([(header::ETAG, format!("\"{revision}\""))], Json(tasks)))
}

/// The platform's words, to be handed on as they came.
fn authority(body: &[u8], headers: &HeaderMap) -> Result<Authority, ApiError> {
    let text =
        std::str::from_utf8(body).map_err(|_| ApiError::new(ErrorCode::InvalidRequestBody, "the body is not UTF-8"))?;
    Ok(Authority { body: text.to_owned(), signature: signature(headers).map(str::to_owned) })
}

/// Runs to its end even when the caller hangs up: a half-done change would be nobody's.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::spawn(work).await.map_err(|e| ApiError::internal(e.to_string()))?
}

/// `POST /setTasks`: the whole wanted set.
pub async fn set(State(app): State<App>, headers: HeaderMap, raw: Body) -> Result<Json<Vec<Task>>, ApiError> {
    let raw = body(raw).await?;
    admit(&app, Verb::SetTasks, &raw, &headers)?;
    let wanted: Option<Vec<Task>> = json(&raw)?;
    let authority = authority(&raw, &headers)?;
    detached(async move { app.manager.set(wanted.unwrap_or_default(), authority).await }).await.map(Json)
}

/// `POST /tasks`: one more task.
pub async fn create(
    State(app): State<App>,
    headers: HeaderMap,
    raw: Body,
) -> Result<(StatusCode, Json<Task>), ApiError> {
    let raw = body(raw).await?;
    admit(&app, Verb::SetTasks, &raw, &headers)?;
    let task: Task = json(&raw)?;
    let authority = authority(&raw, &headers)?;
    let task = detached(async move { app.manager.add(task, authority).await }).await?;
    Ok((StatusCode::CREATED, Json(task)))
}

/// `GET /tasks/{name}`.
pub async fn get(State(app): State<App>, headers: HeaderMap, Path(name): Path<String>) -> Result<Json<Task>, ApiError> {
    admit(&app, Verb::GetTasks, b"", &headers)?;
    let missing = || ApiError::new(ErrorCode::TaskNotFound, format!("no task {name:?}"));
    app.manager.get(&name).map(Json).ok_or_else(missing)
}

/// `DELETE /tasks/{name}`: stops and removes it; an unknown one is gone already. What is signed is the name.
pub async fn delete(
    State(app): State<App>,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    admit(&app, Verb::SetTasks, name.as_bytes(), &headers)?;
    app.manager.delete(&name);
    Ok(StatusCode::NO_CONTENT)
}
