//! Paths and verbs that no route has.

use api_types::ErrorCode;
use axum::extract::Request;

use crate::error::ApiError;

/// No route has the path.
pub async fn path(request: Request) -> ApiError {
    ApiError::new(ErrorCode::RouteNotFound, format!("no route has the path {}", request.uri().path()))
}

/// The path has other verbs; axum names them in `Allow`.
pub async fn verb(request: Request) -> ApiError {
    let message = format!("{} is none of the verbs of {}", request.method(), request.uri().path());
    ApiError::new(ErrorCode::MethodNotAllowed, message)
}
