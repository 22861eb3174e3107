//! JSON bodies: bounded, and refused with the path of the member that is wrong.

use std::time::Duration;

use api_types::ErrorCode;
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;

use crate::app::App;
use crate::error::ApiError;

/// How much, and for how long, an oversized body is read away, so that its sender gets to the answer.
const DRAIN_BYTES: usize = 4 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// Largest body of a route; laid beside each request to it.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimit(pub usize);

/// A body read as JSON, with its bytes.
pub struct Json<T> {
    /// What it says.
    pub value: T,
    /// As it came.
    pub bytes: Bytes,
}

impl<T: DeserializeOwned> FromRequest<App> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        check_type(&parts.headers)?;
        let limits = &app.config.limits;
        let of_route = parts.extensions.get::<BodyLimit>().map_or(limits.body_bytes, |limit| limit.0);
        let bytes = read(body, of_route.min(limits.body_bytes), limits.body_arrival).await?;
        Ok(Self { value: parse(&bytes)?, bytes })
    }
}

fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json")) {
        return Ok(());
    }
    Err(ApiError::field("Content-Type", format_args!("is {kind:?}; send application/json")))
}

/// Reads a body of at most `limit` bytes that arrives in time; the sender of another is stopped.
pub async fn read(mut body: Body, limit: usize, arrival: Duration) -> Result<Bytes, ApiError> {
    let too_large = |body: Body| {
        tokio::spawn(drain(body));
        ApiError::new(ErrorCode::BodyTooLarge, format!("the body is larger than the {limit} bytes this route takes"))
    };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large(body));
    }
    let late = tokio::time::sleep(arrival);
    tokio::pin!(late);
    let mut bytes = BytesMut::new();
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            () = &mut late => {
                return Err(ApiError::new(ErrorCode::RequestTimeout, "the body did not arrive in time"));
            }
        };
        match frame {
            None => return Ok(bytes.freeze()),
            Some(Err(error)) => {
                return Err(ApiError::new(ErrorCode::InvalidRequest, format!("the body broke off: {error}")));
            }
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                if bytes.len() + data.len() > limit {
                    return Err(too_large(body));
                }
                bytes.extend_from_slice(&data);
            }
        }
    }
}

/// Reads on for a moment: a connection that is closed on unread bytes is reset, and the answer lost.
async fn drain(mut body: Body) {
    let mut read = 0;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, Bytes::len);
            if read > DRAIN_BYTES {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIME, reading).await;
}

/// Parses JSON; a refusal begins with the path of the member.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    if bytes.is_empty() {
        return Err(ApiError::field("body", "is empty; send JSON"));
    }
    let mut parser = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut parser).map_err(|error| {
        let path = error.path().to_string();
        // A member whose name was not read to its end has the name `?`.
        let path = path.trim_end_matches(".?");
        let field = if matches!(path, "." | "?") { "body" } else { path };
        ApiError::field(field, error.inner())
    })?;
    parser.end().map_err(|error| ApiError::field("body", error))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use api_types::lifecycle::CreateSandboxRequest;

    use super::*;

    #[test]
    fn a_wrong_member_is_named() {
        let refusal = |text: &str| parse::<CreateSandboxRequest>(text.as_bytes()).unwrap_err().message;
        for (text, start) in [
            ("", "body: is empty"),
            ("{", "body: EOF"),
            ("[1]", "[0]: "),
            ("5", "body: "),
            ("{} x", "body: trailing"),
            (r#"{"timeout":"soon"}"#, "timeout: invalid type"),
            (r#"{"env":{"A":1}}"#, "env.A: invalid type"),
            (r#"{"image":{"uri":5}}"#, "image.uri: invalid type"),
            (r#"{"entrypoint":["a",2]}"#, "entrypoint[1]: invalid type"),
        ] {
            assert!(refusal(text).starts_with(start), "{text}: {}", refusal(text));
        }
    }

    #[tokio::test]
    async fn a_body_has_a_bound_with_and_without_a_length() {
        assert_eq!(read(Body::from("12345"), 5, DRAIN_TIME).await.unwrap(), "12345");
        assert_eq!(read(Body::from("123456"), 5, DRAIN_TIME).await.unwrap_err().code, ErrorCode::BodyTooLarge);
        let chunks = futures::stream::iter((0..3).map(|_| Ok::<_, std::io::Error>("abc")));
        assert_eq!(read(Body::from_stream(chunks), 8, DRAIN_TIME).await.unwrap_err().code, ErrorCode::BodyTooLarge);
    }
}
