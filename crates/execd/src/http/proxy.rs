//! `/proxy/{port}/{rest}`: any port of the sandbox, HTTP and upgrades, path bytes as they came.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll};
use std::time::Duration;

use api_types::ErrorCode;
use api_types::names::headers as names;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::{IntoResponse, Response};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use tower::Service;

use super::{ApiError, Shared};

/// Idle connections that are kept to one port, and for how long.
const IDLE: (usize, Duration) = (8, Duration::from_secs(30));
/// Time for a connection to a port of this very machine.
const CONNECT: Duration = Duration::from_secs(5);
/// Headers that belong to one connection.
const HOP: [HeaderName; 7] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Connections to ports of the sandbox.
pub struct Ports(Client<HttpConnector<Loopback>, Body>);

/// Programs listen to either of the two; a name service is not asked.
#[derive(Clone)]
pub struct Loopback;

impl Service<Name> for Loopback {
    type Response = std::array::IntoIter<SocketAddr, 2>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        let both = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))];
        std::future::ready(Ok(both.into_iter()))
    }
}

impl Default for Ports {
    fn default() -> Self {
        let mut connector = HttpConnector::new_with_resolver(Loopback);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(IDLE.0)
            .pool_idle_timeout(IDLE.1)
            .build(connector);
        Self(client)
    }
}

/// Takes `/proxy/{our own port}` off the front of a path, as often as it stands there: such a call is
/// for this daemon itself, and no second connection is made for it.
pub fn strip_self(uri: &Uri, port: u16) -> Option<Uri> {
    let prefix = format!("/proxy/{port}");
    let mut path = uri.path();
    while let Some(rest) = path.strip_prefix(&prefix).filter(|rest| rest.is_empty() || rest.starts_with('/')) {
        path = rest;
    }
    if path.len() == uri.path().len() {
        return None;
    }
    let path = if path.is_empty() { "/" } else { path };
    let text = uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(text).ok()?);
    Uri::from_parts(parts).ok()
}

/// The target of a proxied path: its port, and path and query byte for byte.
fn target(uri: &Uri) -> Result<(u16, Uri), ApiError> {
    let rest = uri.path().strip_prefix("/proxy/").unwrap_or_default();
    let (port, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let wrong = || ApiError::invalid(format!("{port:?} is no port; use /proxy/PORT/PATH"));
    let port: u16 = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
    let query = uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    let target = Uri::try_from(format!("http://localhost:{port}{path}{query}"));
    target.map(|uri| (port, uri)).map_err(|e| ApiError::invalid(e.to_string()))
}

/// The handler.
pub async fn forward(
    State(app): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let (port, uri) = target(request.uri())?;
    let upgrade = upgrade_of(request.headers());
    let from_client = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let mut outgoing = http::Request::builder()
        .method(parts.method)
        .uri(uri)
        .body(body)
        .map_err(|e| ApiError::invalid(e.to_string()))?;
    *outgoing.headers_mut() = onward(parts.headers, upgrade.as_ref(), peer);
    let failed = |e: &dyn std::fmt::Display| {
        ApiError::new(ErrorCode::BackendConnectionFailed, format!("port {port} of the sandbox: {e}"))
    };
    let mut answer = app.ports.0.request(outgoing).await.map_err(|e| match std::error::Error::source(&e) {
        Some(source) => failed(&source),
        None => failed(&e),
    })?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        strip(answer.headers_mut());
        return Ok(answer.map(Body::new).into_response());
    }
    let Some(from_client) = from_client else {
        return Err(ApiError::new(ErrorCode::BackendResponseFailed, "the port switched protocols without being asked"));
    };
    let from_port = hyper::upgrade::on(&mut answer);
    tokio::spawn(async move {
        let (Ok(client), Ok(port)) = tokio::join!(from_client, from_port) else { return };
        // Either side may go at any time; that is the end and no error.
        let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(port)).await;
    });
    Ok(answer.map(|_| Body::empty()).into_response())
}

fn upgrade_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let asked =
        headers.get(header::CONNECTION)?.to_str().ok()?.split(',').any(|t| t.trim().eq_ignore_ascii_case("upgrade"));
    headers.get(header::UPGRADE).filter(|_| asked).cloned()
}

/// The headers as the port gets them. The token is the sandbox owner's word to execd, not to programs.
fn onward(mut headers: HeaderMap, upgrade: Option<&HeaderValue>, peer: SocketAddr) -> HeaderMap {
    strip(&mut headers);
    headers.remove(names::EXECD_ACCESS_TOKEN);
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol.clone());
    }
    let forwarded = HeaderName::from_static("x-forwarded-for");
    let before = headers.get(&forwarded).and_then(|v| v.to_str().ok()).map(|v| format!("{v}, ")).unwrap_or_default();
    if let Ok(value) = HeaderValue::try_from(format!("{before}{}", peer.ip())) {
        headers.insert(forwarded, value);
    }
    headers.insert(HeaderName::from_static("x-forwarded-proto"), HeaderValue::from_static("http"));
    headers
}

fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP) {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_to_itself_are_taken_off() {
        let strip = |text: &str| strip_self(&text.parse().unwrap(), 44772).map(|uri| uri.to_string());
        assert_eq!(strip("/proxy/44772/ping?x=%2F"), Some("/ping?x=%2F".into()));
        assert_eq!(strip("/proxy/44772/proxy/44772"), Some("/".into()));
        assert_eq!(strip("/proxy/44772/proxy/80/x"), Some("/proxy/80/x".into()));
        assert_eq!(strip("/proxy/447721/x"), None);
        assert_eq!(strip("/ping"), None);
    }

    #[test]
    fn path_bytes_are_kept() {
        let of = |text: &str| target(&text.parse().unwrap()).map(|(port, uri)| (port, uri.to_string()));
        assert_eq!(of("/proxy/80/a%2Fb/?q=+1").unwrap(), (80, "http://localhost:80/a%2Fb/?q=+1".into()));
        assert_eq!(of("/proxy/80").unwrap(), (80, "http://localhost:80/".into()));
        assert!(of("/proxy/x/a").is_err());
        assert!(of("/proxy/0/a").is_err());
    }

    #[test]
    fn the_token_goes_no_further() {
        let mut headers = HeaderMap::new();
        headers.insert("x-execd-access-token", HeaderValue::from_static("t"));
        headers.insert("connection", HeaderValue::from_static("close, x-mine"));
        headers.insert("x-mine", HeaderValue::from_static("1"));
        headers.insert("x-other", HeaderValue::from_static("2"));
        let sent = onward(headers, None, "10.0.0.1:5".parse().unwrap());
        let names: Vec<&str> = sent.keys().map(HeaderName::as_str).collect();
        assert_eq!(names.len(), 3);
        assert!(["x-other", "x-forwarded-for", "x-forwarded-proto"].iter().all(|n| names.contains(n)));
    }
}
