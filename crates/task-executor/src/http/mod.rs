//! The HTTP API on port 5758.

mod claim;
mod guard;
mod serve;
mod tasks;

use std::sync::Arc;

use api_types::ErrorCode;
use api_types::auth::DaemonKey;
use axum::routing::{get, post};
use axum::{Json, Router};

pub use serve::serve;

use crate::error::ApiError;
use crate::manager::Manager;

/// Longest wait of one call, in seconds.
pub const LONGEST_WAIT: u64 = 55;

/// What every handler sees.
#[derive(Clone)]
pub struct App {
    /// The tasks.
    pub manager: Arc<Manager>,
    /// The key that calls must be signed for, where the pod carries one.
    pub key: Option<DaemonKey>,
}

/// All routes.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/health", get(async || Json(serde_json::json!({"status": "healthy"}))))
        .route("/getTasks", get(tasks::list))
        .route("/setTasks", post(tasks::set))
        .route("/tasks", post(tasks::create))
        .route("/tasks/{name}", get(tasks::get).delete(tasks::delete))
        .route("/v1/claim", get(claim::status).post(claim::claim))
        .route("/v1/claim/entrypoint", get(claim::entrypoint))
        .route("/v1/reset", post(claim::reset))
        .fallback(async || ApiError::new(ErrorCode::RouteNotFound, "no such route"))
        .method_not_allowed_fallback(async || {
            ApiError::new(ErrorCode::MethodNotAllowed, "this route does not take that method")
        })
        .with_state(app)
}
