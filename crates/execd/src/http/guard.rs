//! Who may call: readiness is everybody's, the platform signs its calls, the rest is the owner's.

use api_types::ErrorCode;
use api_types::auth::Verb;
use api_types::names::headers;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method};
use jiff::Timestamp;

use super::{ApiError, App, Shared};

/// What a route needs of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Nothing; but a token that is wrong is told so.
    Nothing,
    /// The handler checks a signature or a secret handle itself.
    Own,
    /// The owner's token.
    Token,
}

fn need(method: &Method, path: &str) -> Need {
    match path {
        "/ping" => Need::Nothing,
        "/v1/claim" if *method == Method::GET => Need::Own,
        "/v1/claim" if *method == Method::POST => Need::Own,
        "/v1/claim/entrypoint" | "/v1/tasks" => Need::Own,
        _ if path.starts_with("/v1/tasks/") => Need::Own,
        _ => Need::Token,
    }
}

/// What is known of the pod's owner and the token that was presented.
#[derive(Debug, Clone, Copy)]
struct Facts {
    keyed: bool,
    claimed: bool,
    has_static: bool,
    /// A token came, and is right or not.
    token: Option<bool>,
}

fn decide(need: Need, facts: Facts) -> Result<(), ErrorCode> {
    let locked = facts.claimed || facts.has_static;
    match (need, facts.token) {
        (Need::Own, _) => Ok(()),
        (Need::Nothing, Some(false)) if locked => Err(ErrorCode::BadAccessToken),
        (Need::Nothing, _) => Ok(()),
        (Need::Token, _) if facts.keyed && !facts.claimed => Err(ErrorCode::NotClaimed),
        (Need::Token, Some(true)) => Ok(()),
        (Need::Token, _) if locked => Err(ErrorCode::BadAccessToken),
        (Need::Token, _) => Ok(()),
    }
}

fn facts(app: &App, request_headers: &HeaderMap) -> Facts {
    let presented = request_headers.get(headers::EXECD_ACCESS_TOKEN).map(|v| v.to_str().unwrap_or_default());
    let right = |token: &str| {
        let of_claim = app.claims.token_matches(token);
        let of_config = || app.static_token.is_some_and(|hash| hash.matches(token));
        of_claim.unwrap_or_else(of_config)
    };
    Facts {
        keyed: app.key.is_some(),
        claimed: app.claims.claimed(),
        has_static: app.static_token.is_some(),
        token: presented.map(right),
    }
}

/// Lets a request through, or refuses it.
pub async fn check(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let need = need(request.method(), request.uri().path());
    match decide(need, facts(&app, request.headers())) {
        Ok(()) => next.run(request).await,
        Err(ErrorCode::NotClaimed) => {
            let text = "no sandbox has claimed this pod, so nothing may be run in it";
            ApiError::new(ErrorCode::NotClaimed, text).into_response()
        }
        Err(code) => {
            let text = format!("header {} is missing or not the token of this sandbox", headers::EXECD_ACCESS_TOKEN);
            ApiError::new(code, text).into_response()
        }
    }
}

/// Checks the platform's signature where the pod carries its key. Without a key a static token, where
/// there is one, is asked for instead.
///
/// # Errors
/// The call is not the platform's.
pub fn signed(app: &App, verb: Verb, body: &[u8], request_headers: &HeaderMap) -> Result<(), ApiError> {
    let header = request_headers.get(headers::SIGNATURE).and_then(|value| value.to_str().ok());
    verify(app, verb, body, header)?;
    if app.key.is_none() && app.static_token.is_some() && facts(app, request_headers).token != Some(true) {
        let text = format!("header {} is missing or wrong", headers::EXECD_ACCESS_TOKEN);
        return Err(ApiError::new(ErrorCode::BadAccessToken, text));
    }
    Ok(())
}

/// Checks a signature where the pod carries the platform's key.
///
/// # Errors
/// It is missing, or not the platform's for this pod, call and time.
pub fn verify(app: &App, verb: Verb, body: &[u8], signature: Option<&str>) -> Result<(), ApiError> {
    let Some(key) = &app.key else { return Ok(()) };
    let now = Timestamp::now().as_second().cast_unsigned();
    key.verify(verb, body, signature, now).map_err(|e| ApiError::new(ErrorCode::BadSignature, e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case() {
        let facts = |keyed, claimed, has_static, token| Facts { keyed, claimed, has_static, token };
        let (bad, free) = (Err(ErrorCode::BadAccessToken), Err(ErrorCode::NotClaimed));
        for (need, facts, want) in [
            // A warm pod of the platform: ready, and nothing else.
            (Need::Nothing, facts(true, false, false, None), Ok(())),
            (Need::Nothing, facts(true, false, false, Some(false)), Ok(())),
            (Need::Token, facts(true, false, false, None), free),
            (Need::Token, facts(true, false, true, Some(true)), free),
            (Need::Own, facts(true, false, false, None), Ok(())),
            // Claimed.
            (Need::Nothing, facts(true, true, false, None), Ok(())),
            (Need::Nothing, facts(true, true, false, Some(false)), bad),
            (Need::Token, facts(true, true, false, None), bad),
            (Need::Token, facts(true, true, false, Some(false)), bad),
            (Need::Token, facts(true, true, false, Some(true)), Ok(())),
            // A pod by hand: open, or with a static token.
            (Need::Token, facts(false, false, false, None), Ok(())),
            (Need::Token, facts(false, false, false, Some(false)), Ok(())),
            (Need::Token, facts(false, false, true, None), bad),
            (Need::Token, facts(false, false, true, Some(true)), Ok(())),
            (Need::Token, facts(false, true, false, None), bad),
        ] {
            assert_eq!(decide(need, facts), want, "{need:?} {facts:?}");
        }
    }

    #[test]
    fn routes_and_their_needs() {
        for (method, path, want) in [
            (Method::GET, "/ping", Need::Nothing),
            (Method::POST, "/v1/claim", Need::Own),
            (Method::GET, "/v1/claim", Need::Own),
            (Method::DELETE, "/v1/claim", Need::Token),
            (Method::GET, "/v1/tasks/abc", Need::Own),
            (Method::POST, "/command", Need::Token),
            (Method::GET, "/no/such", Need::Token),
        ] {
            assert_eq!(need(&method, path), want, "{method} {path}");
        }
    }
}
