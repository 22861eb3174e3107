//! Counts and measures every request, and writes an audit line for each that changes or runs something.

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{Method, header};
use tokio::time::Instant;

use crate::app::App;
use crate::keys::Caller;
use crate::metrics::{Answered, Counted, Routed};

/// Observes a request from outside the key's check, so that refusals count as well.
pub async fn observe(State(app): State<App>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let _counted = Counted::new(&app.metrics.in_flight);
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    let status = response.status().as_u16();
    let verb = verb(&method);
    app.metrics
        .seconds
        .get_or_create(&Routed { route: route.clone(), method: verb })
        .observe(start.elapsed().as_secs_f64());
    app.metrics.requests.get_or_create(&Answered { route: route.clone(), method: verb, status }).inc();
    if !matches!(method, Method::GET | Method::HEAD | Method::OPTIONS) || route.contains("/proxy/") {
        audit(&response, verb, &route, &path, status);
    }
    response
}

/// Who did what to which sandbox, and how it ended. Never a key, a header or a body.
fn audit(response: &Response, verb: &str, route: &str, path: &str, status: u16) {
    let who = response.extensions().get::<Caller>().map_or("nobody", |caller| caller.name.as_str());
    let made = response.headers().get(header::LOCATION).filter(|_| route.ends_with("/sandboxes"));
    let place = made.and_then(|location| location.to_str().ok()).unwrap_or(path);
    let object = object(place).unwrap_or_default();
    tracing::info!(target: "audit", who, verb, route, object, status, "audit");
}

/// The sandbox or pool that a path is about.
fn object(path: &str) -> Option<&str> {
    let path = path.strip_prefix("/v1").unwrap_or(path);
    let rest = path.strip_prefix("/sandboxes/").or_else(|| path.strip_prefix("/pools/"))?;
    rest.split('/').next().filter(|name| !name.is_empty())
}

/// The verb as a label: callers can't make new ones.
fn verb(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_of_a_path() {
        assert_eq!(object("/v1/sandboxes/a/proxy/80/x"), Some("a"));
        assert_eq!(object("/pools/p"), Some("p"));
        assert_eq!(object("/v1/sandboxes"), None);
        assert_eq!(object("/v1/metrics/events"), None);
    }
}
