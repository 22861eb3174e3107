//! `GET /command/{id}/output`: the output from any place on, followed to the end.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, StatusCode, Uri, header};

use super::super::request::Query;
use super::super::{ApiError, Shared};
use super::find;
use crate::stream::{self, Cursor, Encoding, Form, Framing};

/// The handler. The place is `?offset=`, or the `Last-Event-ID` of a reader that was cut off.
pub async fn output(
    State(app): State<Shared>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let query = Query::of(&uri)?;
    let given = headers.get("last-event-id").map(|value| value.to_str().unwrap_or("?"));
    let from = match query.get("offset").or(given) {
        None => Cursor::default(),
        Some(text) => Cursor::parse(text).ok_or_else(|| {
            ApiError::invalid(format!("{text:?} is no place in the output; give the cursor of an event, or a number"))
        })?,
    };
    let execution = find(&app, &id)?;
    let end = execution.journal.end();
    if from.first() > end {
        return Err(ApiError::invalid(format!("the place {from} lies past the {end} bytes there are")));
    }
    if query.get("encoding") == Some("raw") {
        let body = Body::from_stream(stream::raw(execution, from.first()));
        return Ok(([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response());
    }
    Ok(events(Body::from_stream(stream::live(execution, from, form(&query)?))))
}

/// The form of a stream that a query asks for.
pub fn form(query: &Query) -> Result<Form, ApiError> {
    let encoding = match query.get("encoding") {
        None | Some("text") => Encoding::Text,
        Some("base64") => Encoding::Base64,
        Some(other) => return Err(ApiError::invalid(format!("encoding must be text or base64, not {other:?}"))),
    };
    let framing = match query.get("format") {
        None | Some("json") => Framing::Bare,
        Some("sse") => Framing::Sse,
        Some(other) => return Err(ApiError::invalid(format!("format must be json or sse, not {other:?}"))),
    };
    Ok(Form { encoding, framing })
}

/// A stream of events as an answer.
pub fn events(body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (StatusCode::OK, headers, body).into_response()
}
