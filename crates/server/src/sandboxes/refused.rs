//! What this server has not: each route is there and says so, with a code a program can match on.

use axum::extract::Request;

use crate::error::ApiError;

/// Pausing and resuming.
pub async fn pause() -> ApiError {
    ApiError::unsupported(
        "pause",
        "this server can't pause sandboxes; delete it, and create one from the pool when it is needed",
    )
}

/// Snapshots.
pub async fn snapshots() -> ApiError {
    ApiError::unsupported("snapshots", "this server keeps no snapshots of sandboxes")
}

/// Network policies.
pub async fn network_policy() -> ApiError {
    ApiError::unsupported("networkpolicy", "this server runs no egress sidecar; use a Kubernetes NetworkPolicy")
}

/// Templates.
pub async fn templates(_: Request) -> ApiError {
    ApiError::unsupported("templates", "this server builds no templates; create a pool")
}
