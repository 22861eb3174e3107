//! The API key, asked for on every route but the few that are public by name.

use api_types::ErrorCode;
use api_types::names::headers::API_KEY;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::app::App;
use crate::error::ApiError;

/// Paths that need no key, whole.
pub const PUBLIC: [&str; 3] = ["/health", "/version", "/openapi.json"];

/// Lets a request with a right key pass.
pub async fn check(State(app): State<App>, request: Request, next: Next) -> Response {
    let keys = &app.config.api_keys;
    if keys.is_empty() || PUBLIC.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let Some(given) = request.headers().get(API_KEY) else {
        let message = format!("{API_KEY}: the header is missing");
        return ApiError::new(ErrorCode::MissingApiKey, message).into_response();
    };
    if !keys.accept(given.as_bytes()) {
        let message = format!("{API_KEY}: the key is not one of this server's");
        return ApiError::new(ErrorCode::InvalidApiKey, message).into_response();
    }
    next.run(request).await
}
