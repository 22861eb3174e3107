//! The API key, asked for on every route but the few that are public by name; and what the key allows.

use std::time::Duration;

use api_types::ErrorCode;
use api_types::names::headers::{API_KEY, EXECD_ACCESS_TOKEN, SECURE_ACCESS};
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
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
pub async fn check(State(app): State<App>, request: Request, next: Next) -> Response {
    if PUBLIC.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    // Apart, because a body can't be looked at across a wait.
    let (mut head, body) = request.into_parts();
    let route = head.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let (proxied, needed) = (route.contains("/proxy/"), needed(&head.method, route));
    let admitted = match proxied && is_with_token(&head.headers) && !app.is_open() {
        true => by_token(&app, &head).await,
        false => identify(&app, &head, needed).await,
    };
    let (app, caller) = match admitted {
        Ok(admitted) => admitted,
        Err(Refusal { reason, error, caller }) => {
            app.metrics.auth_failures.get_or_create(&Reason { reason }).inc();
            return answer(error, caller);
        }
    };
    if !proxied && let Err(error) = app.rates.take(&caller, app.config.limits.rate) {
        return answer(error, Some(caller));
    }
    head.extensions.insert(caller.clone());
    head.extensions.insert(app);
    let mut response = next.run(Request::from_parts(head, body)).await;
    // The audit line is written outside of this.
    response.extensions_mut().insert(caller);
    response
}

/// Whether a caller of the proxy has no key, and the token of a port instead.
fn is_with_token(headers: &HeaderMap) -> bool {
    let token = headers.contains_key(SECURE_ACCESS) || headers.contains_key(EXECD_ACCESS_TOKEN);
    token && !headers.contains_key(API_KEY)
}

/// A refusal, with whom it is told to where that is known: the audit line is written outside of this.
fn answer(error: ApiError, caller: Option<Caller>) -> Response {
    let mut response = error.into_response();
    if let Some(caller) = caller {
        response.extensions_mut().insert(caller);
    }
    response
}

/// Why a request may not pass.
struct Refusal {
    /// For the metrics.
    reason: &'static str,
    error: ApiError,
    /// Whose the key is, where it is a right one that may not do this.
    caller: Option<Caller>,
}

impl Refusal {
    fn new(reason: &'static str, code: ErrorCode, message: String) -> Self {
        Self { reason, error: ApiError::new(code, message), caller: None }
    }
}

/// Who may pass, with the view that is theirs.
type Admission = Result<(App, Caller), Refusal>;

async fn by_token(app: &App, head: &Parts) -> Admission {
    if let Some(app) = proxy::opened_by_token(app, head.uri.path(), &head.headers).await {
        let tenant = app.tenant().cloned();
        return Ok((app, Caller { name: "sandbox-token".to_owned(), scope: Scope::Run, tenant }));
    }
    let message = format!("{SECURE_ACCESS}: the token is not that of this port of this sandbox");
    Err(Refusal::new("token", ErrorCode::InvalidSecureAccess, message))
}

async fn identify(app: &App, head: &Parts, needed: Scope) -> Admission {
    if app.is_open() {
        let caller = Caller { name: "anybody".to_owned(), scope: Scope::Admin, tenant: None };
        return Ok((app.clone(), caller));
    }
    let Some(given) = head.headers.get(API_KEY) else {
        let message = format!("{API_KEY}: the header is missing");
        return Err(Refusal::new("missing", ErrorCode::MissingApiKey, message));
    };
    let found = match &app.config.tenants {
        None => app.keys.read().find(given.as_bytes(), Timestamp::now()),
        Some(tenants) => match tenants.find(given.as_bytes()).await {
            Ok(found) => found.map(|found| found.caller()),
            Err(away) => {
                let error = ApiError::new(ErrorCode::TenantProviderUnavailable, away.to_string());
                let error = error.retry_after(Duration::from_secs(1));
                return Err(Refusal { reason: "provider", error, caller: None });
            }
        },
    };
    let Some(caller) = found else {
        let message = format!("{API_KEY}: the key is not one of this server's, or has expired");
        return Err(Refusal::new("invalid", ErrorCode::InvalidApiKey, message));
    };
    if caller.scope < needed {
        let message = format!(
            "{API_KEY}: {} has the scope {}; {} {} needs {}",
            caller.name,
            caller.scope.as_str(),
            head.method,
            head.uri.path(),
            needed.as_str()
        );
        return Err(Refusal { caller: Some(caller), ..Refusal::new("scope", ErrorCode::InsufficientScope, message) });
    }
    let app = caller.tenant.as_ref().map_or_else(|| app.clone(), |tenant| app.of(tenant));
    Ok((app, caller))
}

/// What a request needs. Endpoints give tokens and the proxy runs code, so both need more than looking.
fn needed(method: &Method, route: &str) -> Scope {
    let looks = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    match (looks, route) {
        (_, route) if route.contains("/proxy/") || route.contains("/endpoints/") => Scope::Run,
        (true, _) => Scope::Read,
        (false, route) if route.contains("/pools") => Scope::Admin,
        (false, _) => Scope::Run,
    }
}
