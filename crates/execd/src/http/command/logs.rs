//! `GET /command/{id}/logs?cursor=`: bytes from an absolute offset, as far as they are there now.

use api_types::names::headers;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, Uri, header};

use super::super::request::Query;
use super::super::{ApiError, Shared};
use super::find;
use crate::stream;

/// Bytes of a log in one answer.
const CHUNK: usize = 4 << 20;
/// Says how many bytes before the answer's first one are gone.
const LOST: HeaderName = HeaderName::from_static("execd-commands-lost-bytes");

/// The handler. A cursor before what is still held begins there.
pub async fn logs(State(app): State<Shared>, Path(id): Path<String>, uri: Uri) -> Result<Response, ApiError> {
    let execution = find(&app, &id)?;
    let query = Query::of(&uri)?;
    let cursor = match query.get("cursor").map(str::parse::<i64>) {
        Some(Ok(negative)) if negative < 0 => return Err(ApiError::invalid("cursor must not be negative")),
        Some(Ok(cursor)) => cursor.cast_unsigned(),
        // As OpenSandbox does: what is no number is the beginning.
        Some(Err(_)) | None => 0,
    };
    let ended = execution.outcome().is_some();
    let (mut bytes, mut next, lost) = execution.journal.read_all(cursor, CHUNK);
    // A character that is begun comes whole with the next answer.
    let whole = stream::whole(&bytes);
    if whole < bytes.len() && !(ended && next == execution.journal.end()) {
        next -= (bytes.len() - whole) as u64;
        bytes.truncate(whole);
    }
    let mut response = bytes.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    let cursor_name = HeaderName::try_from(headers::TAIL_CURSOR.to_ascii_lowercase());
    if let Ok(name) = cursor_name {
        headers.insert(name, next.max(cursor).into());
    }
    if lost > 0 {
        headers.insert(LOST, lost.into());
    }
    Ok(response)
}
