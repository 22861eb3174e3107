//! The API key, asked for on every route but the few that are public by name; and what the key allows.

use api_types::ErrorCode;
use api_types::names::headers::API_KEY;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::Method;
use jiff::Timestamp;

use crate::app::App;
use crate::error::ApiError;
use crate::keys::{Caller, Scope};
use crate::metrics::Reason;

/// Paths that need no key, whole.
pub const PUBLIC: [&str; 6] = ["/health", "/healthz", "/readyz", "/version", "/openapi.json", "/docs"];

/// Lets a request with a right key pass.
pub async fn check(State(app): State<App>, mut request: Request, next: Next) -> Response {
    if PUBLIC.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let caller = match identify(&app, &request) {
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
