//! The proxy: any request to a port of a sandbox, streamed both ways.
//!
//! The target is always the pod that holds the sandbox now. For execd's port the proxy sends the
//! token of that pod itself, so that a token a client remembered from an earlier pod opens nothing
//! and breaks nothing; whoever may use the proxy may ask for the token as well.

mod backend;
mod headers;
mod idle;
mod tunnel;

use std::net::SocketAddr;

use api_types::ErrorCode;
use api_types::crd::BatchSandbox;
use api_types::names::{headers as names, labels};
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, Uri, header};
use http_body_util::BodyExt as _;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use subtle::ConstantTimeEq as _;

pub use backend::Backend;

use crate::app::App;
use crate::error::{ApiError, within};
use crate::front::via::{Scheme, prefix};
use crate::labels::{is_object_name, value_problem};
use crate::sandboxes::endpoints;

/// Which port of which sandbox, and what of it.
#[derive(Debug, PartialEq, Eq)]
struct Target<'a> {
    id: &'a str,
    port: &'a str,
    /// The path from the port on, raw: empty, or beginning with `/`.
    rest: &'a str,
}

/// Reads the raw path, so that `%2F` and doubled slashes reach the sandbox as they were written.
fn target(path: &str) -> Option<Target<'_>> {
    let path = path.strip_prefix("/v1").unwrap_or(path).strip_prefix("/sandboxes/")?;
    let (id, path) = path.split_once("/proxy/")?;
    let end = path.find('/').unwrap_or(path.len());
    let (port, rest) = path.split_at(end);
    Some(Target { id, port, rest })
}

/// Whether the headers carry the token of the port that the path is about: what an endpoint answer gave, instead of a
/// key. Which part is wrong is not told: a caller without a key learns not even which sandboxes exist.
///
/// The answer is the view of the tenant whose sandbox it is.
pub async fn opened_by_token(app: &App, path: &str, headers: &http::HeaderMap) -> Option<App> {
    let carries = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
    let (port_token, execd_token) = (carries(names::SECURE_ACCESS), carries(names::EXECD_ACCESS_TOKEN));
    let target = target(path)?;
    let port = endpoints::parse_port(target.port).ok()?;
    let app = whose(app, target.id).await?;
    let (object, address) = endpoints::locate(&app, target.id).await.ok()?;
    let right = app.access_headers(object.metadata.uid.as_deref()?, &address, port, true);
    let same = |given: Option<&[u8]>, name: &str| match (given, right.get(name)) {
        (Some(given), Some(right)) => bool::from(given.ct_eq(right.as_bytes())),
        _ => false,
    };
    (same(port_token, names::SECURE_ACCESS) || same(execd_token, names::EXECD_ACCESS_TOKEN)).then_some(app)
}

/// The view in which a sandbox is, when the caller named no tenant: from memory, and with one look at Kubernetes where
/// that may look into all namespaces.
async fn whose(app: &App, id: &str) -> Option<App> {
    let Some(tenants) = &app.config.tenants else {
        return Some(app.clone());
    };
    if let Some(space) = app.spaces.with(id) {
        return Some(app.within(space));
    }
    if !is_object_name(id) || value_problem(id).is_some() {
        return None;
    }
    let everywhere: Api<BatchSandbox> = Api::all(app.client.clone());
    let this = ListParams::default().labels(&format!("{}={id}", labels::SANDBOX_ID)).limit(1);
    let listed = within(app.config.limits.kube_timeout, "looking for a sandbox", everywhere.list(&this)).await.ok()?;
    let object = listed.ok()?.items.into_iter().next()?;
    let tenant = tenants.named(object.labels().get(labels::TENANT)?, &object.namespace()?)?;
    (object.namespace()? == tenant.namespace).then(|| app.of(&tenant))
}

/// Passes a request on.
pub async fn handle(app: App, request: Request) -> Response {
    pass(&app, request).await.unwrap_or_else(|error| error.into_response())
}

async fn pass(app: &App, mut request: Request) -> Result<Response, ApiError> {
    let path = request.uri().path().to_owned();
    let target = target(&path)
        .ok_or_else(|| ApiError::new(ErrorCode::RouteNotFound, "a proxy path is /v1/sandboxes/ID/proxy/PORT/PATH"))?;
    let port = endpoints::parse_port(target.port)?;
    let (object, address) = endpoints::locate(app, target.id).await?;
    let authority = endpoints::authority(&address.ip, port);
    let uri = backend_uri(&authority, target.rest, request.uri().query())?;
    let base = format!("{}/sandboxes/{}/proxy/{port}", prefix(&path), target.id);

    let upgrade = headers::wants_websocket(request.headers());
    let gauge = if upgrade { &app.metrics.tunnels } else { &app.metrics.streams };
    let mut place = Some(app.streams.take(gauge)?);
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let caller = upgrade.then(|| hyper::upgrade::on(&mut request));
    let (mut parts, body) = request.into_parts();
    let scheme = parts.extensions.get::<Scheme>().copied().unwrap_or(Scheme::Http);
    headers::for_backend(&mut parts.headers, peer, scheme, upgrade);
    let uid = object.metadata.uid.as_deref().unwrap_or_default();
    for (name, token) in app.access_headers(uid, &address, port, false) {
        if let (Ok(name), Ok(token)) = (header::HeaderName::try_from(name), HeaderValue::from_str(&token)) {
            parts.headers.insert(name, token);
        }
    }
    let mut onward = http::Request::new(Body::empty());
    *onward.method_mut() = parts.method;
    *onward.uri_mut() = uri;
    *onward.headers_mut() = parts.headers;
    if !upgrade {
        let passed = idle::Passed { bytes: app.metrics.to_sandboxes.clone(), open: None };
        *onward.body_mut() = idle::bounded(body, app.config.limits.proxy_idle, passed);
    }

    let mut answer = app.backend.send(onward).await?;
    if let Some(caller) = caller.filter(|_| answer.status() == StatusCode::SWITCHING_PROTOCOLS) {
        let sandbox = hyper::upgrade::on(&mut answer);
        let (metrics, idle, stop) = (app.metrics.clone(), app.config.limits.tunnel_idle, app.stop.clone());
        let place = place.take();
        tokio::spawn(async move {
            let _open = place;
            tunnel::run(caller, sandbox, idle, stop, metrics).await;
        });
    }
    let (mut parts, body) = answer.into_parts();
    headers::for_caller(&mut parts.headers, &base, parts.status == StatusCode::SWITCHING_PROTOCOLS);
    let body = body.map_err(axum::Error::new);
    let passed = idle::Passed { bytes: app.metrics.from_sandboxes.clone(), open: place };
    Ok(Response::from_parts(parts, idle::bounded(Body::new(body), app.config.limits.proxy_idle, passed)))
}

fn backend_uri(authority: &str, rest: &str, query: Option<&str>) -> Result<Uri, ApiError> {
    let rest = if rest.is_empty() { "/" } else { rest };
    let query = query.map(|q| format!("?{q}")).unwrap_or_default();
    let text = format!("http://{authority}{rest}{query}");
    text.parse().map_err(|error| ApiError::field("path", format_args!("can't be passed on: {error}")))
}

/// Makes a root-relative address of the sandbox one below the proxy.
fn relocate(location: &HeaderValue, base: &str) -> Option<HeaderValue> {
    let text = location.to_str().ok()?;
    let relative = text.starts_with('/') && !text.starts_with("//");
    relative.then(|| HeaderValue::from_str(&format!("{base}{text}")).ok()).flatten()
}

/// Name of the header that [`relocate`] is about.
const LOCATION: header::HeaderName = header::LOCATION;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_paths_are_kept() {
        let of = |path: &'static str| target(path).map(|t| (t.id, t.port, t.rest));
        assert_eq!(of("/v1/sandboxes/a/proxy/80"), Some(("a", "80", "")));
        assert_eq!(of("/sandboxes/a/proxy/80/"), Some(("a", "80", "/")));
        assert_eq!(of("/sandboxes/a/proxy/80/x%2Fy//z/proxy/1"), Some(("a", "80", "/x%2Fy//z/proxy/1")));
        assert_eq!(of("/sandboxes/a"), None);
        let uri = backend_uri("10.0.0.1:80", "/x%2Fy", Some("a=%20&b")).unwrap();
        assert_eq!(uri.to_string(), "http://10.0.0.1:80/x%2Fy?a=%20&b");
        assert_eq!(backend_uri("10.0.0.1:80", "", None).unwrap().to_string(), "http://10.0.0.1:80/");
    }

    #[test]
    fn locations_stay_below_the_proxy() {
        let to = |text: &'static str| {
            relocate(&HeaderValue::from_static(text), "/v1/sandboxes/a/proxy/80")
                .map(|v| v.to_str().unwrap().to_owned())
        };
        assert_eq!(to("/login?x").as_deref(), Some("/v1/sandboxes/a/proxy/80/login?x"));
        assert_eq!(to("//elsewhere/x"), None);
        assert_eq!(to("https://elsewhere/x"), None);
        assert_eq!(to("relative"), None);
    }
}
