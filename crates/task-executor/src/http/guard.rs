//! Who may call, and how much a call may bring.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api_types::ErrorCode;
use api_types::auth::Verb;
use api_types::names::headers;
use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::{App, LONGEST_WAIT};
use crate::error::ApiError;

/// Largest body.
const BODY_MAX: usize = 4 << 20;
/// Longest time a body may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// Reads a body within its bounds.
pub async fn body(body: Body) -> Result<Bytes, ApiError> {
    let read = Limited::new(body, BODY_MAX).collect();
    match tokio::time::timeout(BODY_DEADLINE, read).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(ApiError::new(ErrorCode::BodyTooLarge, format!("the body is larger than {BODY_MAX} bytes")))
        }
        Ok(Err(error)) => Err(ApiError::new(ErrorCode::InvalidRequestBody, format!("the body broke off: {error}"))),
        Err(_) => Err(ApiError::new(ErrorCode::RequestTimeout, "the body did not arrive in time")),
    }
}

/// The signature a call carries.
pub fn signature(headers: &HeaderMap) -> Option<&str> {
    headers.get(headers::SIGNATURE).and_then(|value| value.to_str().ok())
}

/// Lets only the platform pass, where the pod carries its key. `signed` is what was signed: the raw body.
pub fn admit(app: &App, verb: Verb, signed: &[u8], headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(key) = &app.key else { return Ok(()) };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    key.verify(verb, signed, signature(headers), now)
        .map_err(|error| ApiError::new(ErrorCode::BadSignature, error.to_string()))
}

/// Reads JSON.
pub fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body)
        .map_err(|e| ApiError::new(ErrorCode::InvalidRequestBody, format!("the body can't be used: {e}")))
}

/// The `wait` of a query in whole seconds, within its bound; `None` where there is none.
pub fn wait(query: Option<&str>) -> Result<Option<Duration>, ApiError> {
    let Some(text) = query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("wait=")) else {
        return Ok(None);
    };
    match text.parse::<u64>() {
        Ok(seconds) => Ok(Some(Duration::from_secs(seconds.min(LONGEST_WAIT)))),
        Err(_) => Err(ApiError::new(ErrorCode::InvalidRequestBody, "wait must be a whole number of seconds")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_bounded() {
        assert_eq!(wait(None), Ok(None));
        assert_eq!(wait(Some("a=1&wait=3")), Ok(Some(Duration::from_secs(3))));
        assert_eq!(wait(Some("wait=100000")), Ok(Some(Duration::from_secs(LONGEST_WAIT))));
        assert!(wait(Some("wait=-1")).is_err() && wait(Some("wait=x")).is_err());
    }

    #[tokio::test]
    async fn a_body_is_bounded() {
        assert_eq!(body(Body::from(vec![0; BODY_MAX])).await.unwrap().len(), BODY_MAX);
        assert_eq!(body(Body::from(vec![0; BODY_MAX + 1])).await.unwrap_err().code, ErrorCode::BodyTooLarge);
    }
}
