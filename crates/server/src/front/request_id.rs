//! `X-Request-ID`: the caller's, or a new one; on every answer and in every log line. Also the last
//! net: a handler that panics is a typed 500.

use api_types::ErrorCode;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue};
use tracing::Instrument as _;

use crate::error::ApiError;

/// Name of the header, in the lower case that HTTP libraries keep.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id that is taken over.
const MAX_ID: usize = 128;

/// Gives request and answer their id.
pub async fn give(mut request: Request, next: Next) -> Response {
    let id = id(request.headers());
    let value = HeaderValue::from_str(&id).ok();
    if let Some(value) = &value {
        request.headers_mut().insert(REQUEST_ID, value.clone());
    }
    let span = tracing::info_span!("request", id = %id, method = %request.method(), path = request.uri().path());
    let handled = std::panic::AssertUnwindSafe(next.run(request)).catch_unwind();
    let mut response = handled.instrument(span.clone()).await.unwrap_or_else(|_| {
        span.in_scope(|| tracing::error!("a handler panicked"));
        ApiError::new(ErrorCode::Internal, format!("the server failed; request id {id}")).into_response()
    });
    span.in_scope(|| tracing::debug!(status = response.status().as_u16(), "answered"));
    if let Some(value) = value {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

fn id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|v| v.to_str().ok()).map(str::trim).unwrap_or_default();
    if (1..=MAX_ID).contains(&given.len()) && given.bytes().all(|b| b.is_ascii_graphic()) {
        return given.to_owned();
    }
    uuid::Uuid::new_v4().simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usable_id_is_kept_and_another_is_replaced() {
        let mut headers = HeaderMap::new();
        assert_eq!(id(&headers).len(), 32);
        headers.insert("x-request-id", " abc ".parse().unwrap());
        assert_eq!(id(&headers), "abc");
        headers.insert("x-request-id", "a b".parse().unwrap());
        assert_eq!(id(&headers).len(), 32);
        headers.insert("x-request-id", "x".repeat(129).parse().unwrap());
        assert_eq!(id(&headers).len(), 32);
    }
}
