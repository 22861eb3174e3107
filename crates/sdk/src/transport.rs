//! One request: headers, deadline, retries where they are safe, errors by type.

use std::time::{Duration, SystemTime};

use api_types::{ErrorBody, names::headers};
use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use parking_lot::Mutex;
use reqwest::{
    Method, RequestBuilder, Response, StatusCode,
    header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER},
};
use tokio::time::Instant;

use crate::{
    ApiError, Error, Result, body,
    config::{ConnectionConfig, Protocol},
    tls,
};

/// Runtimes whose connection pools are remembered at once.
const MAX_RUNTIMES: usize = 8;

/// An HTTP client for one protocol.
///
/// Connections are driven by the runtime they were opened on, so the pool is shared by all
/// clients of one runtime and never across two.
pub(crate) fn shared_client(protocol: Protocol) -> Result<reqwest::Client> {
    type Key = (tokio::runtime::Id, bool);
    static CLIENTS: Mutex<Vec<(Key, reqwest::Client)>> = Mutex::new(Vec::new());

    let runtime = tokio::runtime::Handle::try_current()
        .map_err(|_| Error::invalid("a client must be made inside a Tokio runtime"))?;
    let key = (runtime.id(), protocol == Protocol::Https);
    let mut clients = CLIENTS.lock();
    if let Some((_, client)) = clients.iter().find(|(k, _)| *k == key) {
        return Ok(client.clone());
    }
    let client = build(protocol)?;
    if clients.len() == MAX_RUNTIMES {
        clients.remove(0);
    }
    clients.push((key, client.clone()));
    Ok(client)
}

fn build(protocol: Protocol) -> Result<reqwest::Client> {
    let tls = tls::config(protocol).map_err(|e| Error::invalid(format!("TLS cannot be set up: {e}")))?;
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(10))
        .pool_idle_timeout(Duration::from_secs(60))
        .tcp_nodelay(true)
        .no_proxy()
        .build()
        .map_err(|e| Error::invalid(format!("the HTTP client cannot be set up: {e}")))
}

/// When a call may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// It may: repeating changes nothing.
    Idempotent,
    /// Only when it cannot have reached the other side.
    Unsent,
    /// Its body can be sent once only.
    Never,
}

/// What a call is, for errors, deadlines and retries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    /// In words, for errors.
    pub(crate) operation: &'static str,
    /// When it may be sent again.
    pub(crate) retry: Retry,
    /// Deadline of one attempt up to the answer's head, and, unless `streaming`, to its end.
    pub(crate) timeout: Duration,
    /// Whether the body is read without an overall deadline.
    pub(crate) streaming: bool,
}

/// A good answer, with what is needed to report that its body broke.
pub(crate) struct Answer {
    pub(crate) operation: &'static str,
    pub(crate) response: Response,
    pub(crate) request_id: String,
    timeout: Duration,
}

impl Answer {
    /// The body piece by piece; one that is silent for `idle` has broken.
    pub(crate) fn chunks(self, idle: Duration) -> BoxStream<'static, Result<Bytes>> {
        futures::stream::try_unfold(self, move |mut answer| async move {
            match tokio::time::timeout(idle, answer.response.chunk()).await {
                Ok(Ok(chunk)) => Ok(chunk.map(|bytes| (bytes, answer))),
                Ok(Err(error)) => Err(answer.broken(error)),
                Err(_) => Err(answer.silent(idle)),
            }
        })
        .boxed()
    }

    /// The error for a body that stopped coming.
    pub(crate) fn silent(&self, after: Duration) -> Error {
        Error::Timeout {
            operation: self.operation,
            target: target(self.response.url()),
            request_id: self.request_id.clone(),
            after,
        }
    }

    /// The error for a body that broke.
    pub(crate) fn broken(&self, source: reqwest::Error) -> Error {
        transport_error(self.operation, target(self.response.url()), self.request_id.clone(), self.timeout, source)
    }
}

/// Sends requests with one configuration.
#[derive(Debug, Clone)]
pub(crate) struct Transport {
    pub(crate) http: reqwest::Client,
    pub(crate) config: ConnectionConfig,
}

impl Transport {
    pub(crate) fn new(config: ConnectionConfig) -> Result<Self> {
        if config.domain.is_empty() {
            return Err(Error::invalid("the domain is empty; give host[:port] of the lifecycle API"));
        }
        Ok(Self { http: shared_client(config.protocol)?, config })
    }

    /// A call with this configuration's deadline.
    pub(crate) fn call(&self, operation: &'static str, retry: Retry) -> Call {
        Call { operation, retry, timeout: self.config.request_timeout, streaming: false }
    }

    /// Sends what `request` makes until it is answered well, refused, or not to be tried again.
    pub(crate) async fn send(
        &self,
        call: Call,
        method: Method,
        url: &str,
        extra: &HeaderMap,
        request: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Answer> {
        self.send_counted(call, method, url, extra, request).await.0
    }

    /// As [`Self::send`], and how many failed attempts may nevertheless have had their effect.
    ///
    /// No attempt starts later than one deadline after the first, so the whole takes at most two.
    pub(crate) async fn send_counted(
        &self,
        call: Call,
        method: Method,
        url: &str,
        extra: &HeaderMap,
        request: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> (Result<Answer>, usize) {
        let mut pauses = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(50))
            .with_max_delay(Duration::from_secs(5))
            .with_max_times(self.config.retries)
            .with_jitter()
            .build();
        let last_start = Instant::now() + call.timeout;
        let mut uncertain = 0;
        loop {
            let builder = request(self.http.request(method.clone(), url).headers(extra.clone()));
            let error = match self.attempt(call, builder).await {
                Ok(answer) => return (Ok(answer), uncertain),
                Err(error) => error,
            };
            let verdict = may_retry(call.retry, &error);
            let pause = pauses.next().map(|pause| error.retry_after().map_or(pause, |asked| asked.max(pause)));
            let Some(pause) = pause.filter(|pause| verdict.again && Instant::now() + *pause < last_start) else {
                return (Err(error), uncertain);
            };
            uncertain += usize::from(verdict.uncertain);
            tracing::debug!(operation = call.operation, %error, ?pause, "trying again");
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(&self, call: Call, builder: RequestBuilder) -> Result<Answer> {
        let request_id = uuid::Uuid::new_v4().simple().to_string();
        let mut builder = builder
            .header(headers::REQUEST_ID, &request_id)
            .header(reqwest::header::USER_AGENT, &self.config.user_agent);
        if !call.streaming {
            builder = builder.timeout(call.timeout);
        }
        let request = builder.build().map_err(|e| Error::invalid(format!("{}: {}", call.operation, root(&e))))?;
        let target = target(request.url());
        let sent = tokio::time::timeout(call.timeout, self.http.execute(request)).await;
        let mut response = match sent {
            Ok(Ok(response)) => response,
            Ok(Err(e)) => return Err(transport_error(call.operation, target, request_id, call.timeout, e)),
            Err(_) => {
                return Err(Error::Timeout { operation: call.operation, target, request_id, after: call.timeout });
            }
        };
        let request_id =
            response.headers().get(headers::REQUEST_ID).and_then(|v| v.to_str().ok()).map_or(request_id, str::to_owned);
        if response.status().is_success() || response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Answer { operation: call.operation, response, request_id, timeout: call.timeout });
        }
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|v| parse_retry_after(v, SystemTime::now()));
        let status = response.status().as_u16();
        let text = tokio::time::timeout(call.timeout, body::error_text(&mut response)).await.unwrap_or_default();
        let body = refusal(status, &text);
        Err(Error::Api(Box::new(ApiError {
            operation: call.operation,
            status,
            code: body.code,
            message: body.message,
            request_id,
            retry_after,
        })))
    }
}

/// What a failed attempt means for the next.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    /// Whether to try again.
    again: bool,
    /// Whether this attempt may have had its effect.
    uncertain: bool,
}

fn may_retry(retry: Retry, error: &Error) -> Verdict {
    let (transient, unsent) = match error {
        Error::Connection { before_send, .. } => (true, *before_send),
        Error::Timeout { .. } => (true, false),
        Error::Api(e) => (matches!(e.status, 429 | 502 | 503), false),
        _ => (false, false),
    };
    let again = match retry {
        Retry::Idempotent => transient,
        Retry::Unsent => unsent,
        Retry::Never => false,
    };
    Verdict { again, uncertain: !unsent }
}

/// The error body in any of the shapes servers and proxies in front of them answer with.
fn refusal(status: u16, text: &[u8]) -> ErrorBody {
    if let Ok(body) = serde_json::from_slice::<ErrorBody>(text) {
        return body;
    }
    let code = format!("HTTP_{status}");
    // FastAPI: {"detail": <text or list or {code,message}>}.
    if let Ok(serde_json::Value::Object(mut object)) = serde_json::from_slice(text)
        && let Some(detail) = object.remove("detail")
    {
        return match serde_json::from_value::<ErrorBody>(detail.clone()) {
            Ok(body) => body,
            Err(_) => ErrorBody {
                code,
                message: detail.as_str().map_or_else(|| body::excerpt(detail.to_string().as_bytes()), str::to_owned),
            },
        };
    }
    ErrorBody { code, message: format!("status {status}: {}", body::excerpt(text)) }
}

/// RFC 9110: seconds, or a date.
fn parse_retry_after(value: &HeaderValue, now: SystemTime) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let now = jiff::Timestamp::try_from(now).ok()?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

fn transport_error(
    operation: &'static str,
    target: String,
    request_id: String,
    after: Duration,
    source: reqwest::Error,
) -> Error {
    if source.is_timeout() && !source.is_connect() {
        return Error::Timeout { operation, target, request_id, after };
    }
    let before_send = source.is_connect();
    Error::Connection { operation, target, request_id, before_send, source: source.without_url() }
}

/// Scheme, host and port: all of a URL that is fit for a message.
fn target(url: &reqwest::Url) -> String {
    url.origin().ascii_serialization()
}

fn root(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// Headers from a map of text.
pub(crate) fn header_map<'a>(
    operation: &'static str,
    pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<HeaderMap> {
    pairs
        .into_iter()
        .map(|(name, value)| {
            let key = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| Error::protocol(operation, format!("header name {name:?}")))?;
            // The value may be a secret, so it is not shown.
            let mut value = HeaderValue::from_str(value).map_err(|_| {
                Error::invalid(format!("{operation}: the value of header {name} has characters a header cannot carry"))
            })?;
            value.set_sensitive(true);
            Ok((key, value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_every_shape() {
        let code = |text: &str| refusal(422, text.as_bytes()).code;
        assert_eq!(code(r#"{"code":"X","message":"m"}"#), "X");
        assert_eq!(code(r#"{"detail":{"code":"X","message":"m"}}"#), "X");
        assert_eq!(code(r#"{"detail":"Not Found"}"#), "HTTP_422");
        assert_eq!(refusal(502, b"<html>\n  bad gateway</html>").message, "status 502: <html> bad gateway</html>");
        assert_eq!(refusal(503, b"").message, "status 503: an empty body");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let at = |text: &'static str| {
            parse_retry_after(&HeaderValue::from_static(text), SystemTime::UNIX_EPOCH + Duration::from_secs(10))
        };
        assert_eq!(at("7"), Some(Duration::from_secs(7)));
        assert_eq!(at("Thu, 01 Jan 1970 00:00:30 GMT"), Some(Duration::from_secs(20)));
        assert_eq!(at("Thu, 01 Jan 1970 00:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(at("soon"), None);
    }

    #[test]
    fn only_idempotent_calls_are_repeated_after_a_timeout() {
        let timeout =
            Error::Timeout { operation: "o", target: String::new(), request_id: String::new(), after: Duration::ZERO };
        let again = |retry| may_retry(retry, &timeout).again;
        assert_eq!([Retry::Idempotent, Retry::Unsent, Retry::Never].map(again), [true, false, false]);
        assert!(may_retry(Retry::Idempotent, &timeout).uncertain);
    }
}
