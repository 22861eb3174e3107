//! What handlers need of a request: bounded JSON bodies, form-encoded queries, a request id.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, HttpBody};
use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderName, HeaderValue, Uri};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use parking_lot::Mutex;
use percent_encoding::percent_decode;
use serde::de::DeserializeOwned;

use api_types::ErrorCode;

use super::ApiError;

/// Largest JSON body.
pub const JSON_LIMIT: usize = 4 << 20;

/// Bytes that are read of a body that no handler wanted, and for how long.
const LINGER: (usize, Duration) = (64 << 20, Duration::from_secs(5));

/// Time within which a JSON body has to come.
const JSON_TIME: Duration = Duration::from_secs(30);
/// Time for which a client that sends a file may be silent.
const SILENCE: Duration = Duration::from_secs(60);

/// The whole body, within a bound of size and of time.
///
/// # Errors
/// It is larger or later, or the connection broke.
pub async fn bytes(body: Body) -> Result<Bytes, ApiError> {
    bytes_within(body, JSON_TIME).await
}

async fn bytes_within(body: Body, time: Duration) -> Result<Bytes, ApiError> {
    let Ok(collected) = tokio::time::timeout(time, Limited::new(body, JSON_LIMIT).collect()).await else {
        return Err(ApiError::invalid(format!("the body did not come within {} s", time.as_secs())));
    };
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(ApiError::new(ErrorCode::BodyTooLarge, format!("the body is larger than {JSON_LIMIT} bytes")))
        }
        Err(error) => Err(ApiError::invalid(format!("the body could not be read: {error}"))),
    }
}

/// A request's body while a handler has it; what it leaves can be taken back.
#[derive(Clone)]
struct Lent(Arc<Mutex<Body>>);

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut *self.0.lock()).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().size_hint()
    }
}

/// Reads what a client still sends after it was answered, within a bound: it hears the answer then, and not
/// that the connection broke.
pub async fn linger(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() || request.uri().path().starts_with("/proxy/") {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let lent = Lent(Arc::new(Mutex::new(body)));
    let response = next.run(Request::from_parts(parts, Body::new(lent.clone()))).await;
    let mut count = 0;
    let mut rest = Body::new(lent).into_data_stream();
    let read = async {
        while let Some(Ok(bytes)) = rest.next().await {
            count += bytes.len();
            if count > LINGER.0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(LINGER.1, read).await;
    response
}

/// The stream of a body, which ends in an error when the client is silent for too long: what was begun
/// for it is undone then.
pub fn lively(body: Body) -> BodyDataStream {
    quiet_for(body, SILENCE)
}

fn quiet_for(body: Body, time: Duration) -> BodyDataStream {
    let timed = futures::stream::unfold(Some(body.into_data_stream()), move |rest| async move {
        let mut rest = rest?;
        match tokio::time::timeout(time, rest.next()).await {
            Ok(piece) => Some((piece?, Some(rest))),
            Err(_) => {
                let text = format!("the client was silent for {} s", time.as_secs());
                Some((Err(axum::Error::new(std::io::Error::new(std::io::ErrorKind::TimedOut, text))), None))
            }
        }
    });
    // Whoever was refused reads on to see whether there is more.
    Body::from_stream(timed.fuse()).into_data_stream()
}

/// A JSON body.
///
/// # Errors
/// It is too large, no JSON, or of another shape.
pub async fn json<T: DeserializeOwned>(body: Body) -> Result<T, ApiError> {
    parse(&bytes(body).await?)
}

/// A JSON body that may be empty or null.
///
/// # Errors
/// As for [`json`].
pub async fn json_or_default<T: DeserializeOwned + Default>(body: Body) -> Result<T, ApiError> {
    let bytes = bytes(body).await?;
    if bytes.trim_ascii().is_empty() { Ok(T::default()) } else { Ok(parse::<Option<T>>(&bytes)?.unwrap_or_default()) }
}

/// JSON of this shape.
///
/// # Errors
/// It is none.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|e| ApiError::invalid(format!("error parsing request: {e}")))
}

/// The parameters of a query: form-encoded, in order, names may repeat.
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads them.
    ///
    /// # Errors
    /// A value is no UTF-8 once decoded.
    pub fn of(uri: &Uri) -> Result<Self, ApiError> {
        let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let decode = |text: &str| {
            let spaced = text.replace('+', " ");
            let decoded = percent_decode(spaced.as_bytes()).decode_utf8().map(|t| t.into_owned());
            decoded.map_err(|_| ApiError::invalid(format!("the query has a value that is no UTF-8: {text}")))
        };
        let parsed = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        });
        parsed.collect::<Result<_, ApiError>>().map(Self)
    }

    /// The first value of a name; an empty one is none.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(n, _)| n == name)?;
        Some(found.1.as_str()).filter(|value| !value.is_empty())
    }

    /// Every value of a name.
    pub fn all<'q>(&'q self, name: &'q str) -> impl Iterator<Item = &'q str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// A value that must be there.
    ///
    /// # Errors
    /// It is not.
    pub fn required(&self, name: &str) -> Result<&str, ApiError> {
        self.get(name).ok_or_else(|| ApiError::missing(name))
    }

    /// A number, if given.
    ///
    /// # Errors
    /// It is none, or below zero.
    pub fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let parse = |text: &str| {
            text.parse()
                .map_err(|_| ApiError::invalid(format!("{name} must be a whole number of at least 0, not {text:?}")))
        };
        self.get(name).map(parse).transpose()
    }
}

/// Gives every answer the id of its request: the caller's own if it sent one. The log has the route, never
/// the address, which may carry paths and tokens.
pub async fn identify(request: Request, next: Next) -> Response {
    const NAME: HeaderName = HeaderName::from_static("x-request-id");
    let given = request.headers().get(NAME).filter(|id| id.len() <= 128).cloned();
    let id = given.or_else(|| HeaderValue::try_from(uuid::Uuid::new_v4().simple().to_string()).ok());
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let (method, begun) = (request.method().clone(), std::time::Instant::now());
    let mut response = next.run(request).await;
    let (status, ms) = (response.status().as_u16(), begun.elapsed().as_secs_f64() * 1000.0);
    let route = route.as_deref().unwrap_or("unknown");
    tracing::debug!(%method, route, status, ms, id = id.as_ref().and_then(|id| id.to_str().ok()), "answered");
    if let Some(id) = id {
        response.headers_mut().insert(NAME, id);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_that_does_not_come_is_refused() {
        let silent = || Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        let error = bytes_within(silent(), Duration::from_millis(1)).await.unwrap_err();
        assert_eq!((error.code(), error.to_string().contains("did not come")), (ErrorCode::InvalidRequestBody, true));
        let mut quiet = quiet_for(silent(), Duration::from_millis(1));
        assert!(quiet.next().await.unwrap().unwrap_err().to_string().contains("silent"));
        assert!(quiet.next().await.is_none());
    }

    #[test]
    fn queries_are_form_encoded() {
        let query = Query::of(&Uri::from_static("/x?path=%2Ftmp%2Fa+b&path=/c&empty=&n=7&bad=-1")).unwrap();
        assert_eq!(query.all("path").collect::<Vec<_>>(), ["/tmp/a b", "/c"]);
        assert_eq!(
            (query.get("empty"), query.number("n").unwrap(), query.number("no").unwrap()),
            (None, Some(7), None)
        );
        assert!(query.number("bad").is_err());
        assert!(Query::of(&Uri::from_static("/x?a=%FF")).is_err());
    }
}
