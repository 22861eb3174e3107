//! The API key, asked for on every route but the few that are public by name; and what the key allows.

use api_types::ErrorCode;
use api_types::names::headers::{API_KEY, EXECD_ACCESS_TOKEN, SECURE_ACCESS};
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, Method};
use jiff::Timestamp;

use crate::app::App;
use crate::error::ApiError;
use crate::keys::{Caller, Scope};
use crate::metrics::Reason;
use crate::proxy;

/// Paths that need no key, whole.
pub const PUBLIC: [&str; 6] = ["/health", "/healthz", "/readyz", "/version", "/openapi.json", "/docs"];

/// Lets a request with a right key pass.
pub async fn check(State(app): State<App>, mut request: Request, next: Next) -> Response {
    if PUBLIC.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    // Owned, because a request can't be looked at across a wait.
    let with_token = token_headers(&app, &request);
    let identified = match with_token {
        Some(headers) => {
            let path = request.uri().path().to_owned();
            by_token(&app, &path, &headers).await
        }
        None => identify(&app, &request),
    };
    let caller = match identified {
        Ok(caller) => caller,
        Err((reason, error)) => {
            app.metrics.auth_failures.get_or_create(&Reason { reason }).inc();
            return error.into_response();
        }
    };
    request.extensions_mut().insert(caller.clone());
    let mut response = next.run(request).await;
    // The audit line is written outside of this.
    response.extensions_mut().insert(caller);
    response
}

/// The headers of a caller of the proxy that has no key, and the token of a port instead.
fn token_headers(app: &App, request: &Request) -> Option<HeaderMap> {
    let headers = request.headers();
    let proxied = request.extensions().get::<MatchedPath>().is_some_and(|route| route.as_str().contains("/proxy/"));
    let with_token = headers.contains_key(SECURE_ACCESS) || headers.contains_key(EXECD_ACCESS_TOKEN);
    (proxied && with_token && !headers.contains_key(API_KEY) && !app.keys.read().is_empty()).then(|| headers.clone())
}

async fn by_token(app: &App, path: &str, headers: &HeaderMap) -> Result<Caller, (&'static str, ApiError)> {
    if proxy::opened_by_token(app, path, headers).await {
        return Ok(Caller { name: "sandbox-token".to_owned(), scope: Scope::Run });
    }
    let message = format!("{SECURE_ACCESS}: the token is not that of this port of this sandbox");
    Err(("token", ApiError::new(ErrorCode::InvalidSecureAccess, message)))
}

fn identify(app: &App, request: &Request) -> Result<Caller, (&'static str, ApiError)> {
    let keys = app.keys.read().clone();
    if keys.is_empty() {
        return Ok(Caller { name: "anybody".to_owned(), scope: Scope::Admin });
    }
    let Some(given) = request.headers().get(API_KEY) else {
        let message = format!("{API_KEY}: the header is missing");
        return Err(("missing", ApiError::new(ErrorCode::MissingApiKey, message)));
    };
    let Some(caller) = keys.find(given.as_bytes(), Timestamp::now()) else {
        let message = format!("{API_KEY}: the key is not one of this server's, or has expired");
        return Err(("invalid", ApiError::new(ErrorCode::InvalidApiKey, message)));
    };
    let needed = needed(request);
    if caller.scope < needed {
        let message = format!(
            "{API_KEY}: {} has the scope {}; {} {} needs {}",
            caller.name,
            caller.scope.as_str(),
            request.method(),
            request.uri().path(),
            needed.as_str()
        );
        return Err(("scope", ApiError::new(ErrorCode::InsufficientScope, message)));
    }
    Ok(caller)
}

/// What a request needs. Endpoints give tokens and the proxy runs code, so both need more than looking.
fn needed(request: &Request) -> Scope {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let looks = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    match (looks, route) {
        (_, route) if route.contains("/proxy/") || route.contains("/endpoints/") => Scope::Run,
        (true, _) => Scope::Read,
        (false, route) if route.contains("/pools") => Scope::Admin,
        (false, _) => Scope::Run,
    }
}
