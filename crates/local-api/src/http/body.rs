//! Bodies of requests and answers.

use bytes::Bytes;
use futures::Stream;
use http::{Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited, StreamBody};
use serde_json::Value;

use crate::error::{ApiError, Result};

/// Any error of a transport.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// Body of an answer: whole, or a stream that goes on.
pub type ApiBody = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;

/// Largest body of a request, as kube-apiserver's.
pub(crate) const REQUEST_LIMIT: usize = 3 * 1024 * 1024;

/// Reads a request's body, up to the limit.
pub(crate) async fn collect<B>(body: B) -> Result<Bytes>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    match Limited::new(body, REQUEST_LIMIT).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let message = format!("Request entity too large: limit is {REQUEST_LIMIT}");
            Err(ApiError::new(413, "RequestEntityTooLarge", message))
        }
        Err(error) => Err(ApiError::bad_request(format!("the body of the request could not be read: {error}"))),
    }
}

/// A body that is known whole.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> ApiBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that comes in pieces.
pub(crate) fn streaming(pieces: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static) -> ApiBody {
    use futures::StreamExt as _;
    let frames = pieces.map(|piece| piece.map(http_body::Frame::data).map_err(BoxError::from));
    StreamBody::new(frames).boxed_unsync()
}

/// An answer with a JSON body.
pub(crate) fn json(code: StatusCode, bytes: impl Into<Bytes>) -> Response<ApiBody> {
    let mut response = Response::new(whole(bytes));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// An answer with a JSON value.
pub(crate) fn value(code: StatusCode, value: &Value) -> Response<ApiBody> {
    json(code, crate::store::encode(value))
}

/// An answer in plain text.
pub(crate) fn plain(code: StatusCode, text: impl Into<Bytes>) -> Response<ApiBody> {
    let mut response = Response::new(whole(text));
    *response.status_mut() = code;
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// An error as an answer.
pub(crate) fn error(error: &ApiError) -> Response<ApiBody> {
    let code = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if error.is_plain() {
        return plain(code, format!("{}\n", error.message));
    }
    let mut response = value(code, &error.to_status());
    if let Some(seconds) = error.details.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}
