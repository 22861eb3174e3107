//! What a handler answers when it refuses: a code of the catalogue and a sentence.

use std::time::Duration;

use api_types::{ErrorBody, ErrorCode};
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

/// An error answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Code of the catalogue; it has the status.
    pub code: ErrorCode,
    /// What was wrong, where, and what would be right.
    pub message: String,
    /// When trying again may help.
    pub retry_after: Option<Duration>,
}

impl ApiError {
    /// An error of a code.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }

    /// A member of a request that can't be used: `field` is its path.
    pub fn field(field: &str, message: impl std::fmt::Display) -> Self {
        Self::new(ErrorCode::InvalidRequest, format!("{field}: {message}"))
    }

    /// A member that asks for what this server has not.
    pub fn unsupported(field: &str, message: impl std::fmt::Display) -> Self {
        Self::new(ErrorCode::NotSupported, format!("{field}: {message}"))
    }

    /// No sandbox has this id.
    pub fn sandbox_not_found(id: &str) -> Self {
        Self::new(ErrorCode::SandboxNotFound, format!("no sandbox has the id {id:?}"))
    }

    /// No pool has this name.
    pub fn pool_not_found(name: &str) -> Self {
        Self::new(ErrorCode::PoolNotFound, format!("no pool is named {name:?}"))
    }

    /// Says when trying again may help.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }
}

/// Whole seconds for a `Retry-After`, never 0.
fn retry_seconds(after: Duration) -> u64 {
    (after.as_secs() + u64::from(after.subsec_nanos() > 0)).max(1)
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(ErrorBody::new(self.code, self.message))).into_response();
        if let Some(after) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_seconds(after)));
        }
        response
    }
}

/// What Kubernetes said, in the words of the catalogue.
pub fn from_kube(error: &kube::Error, doing: &str) -> ApiError {
    let kube::Error::Api(status) = error else {
        return ApiError::new(ErrorCode::KubernetesApiError, format!("{doing}: {}", telemetry::chain(error)));
    };
    let message = format!("{doing}: {}", status.message);
    match status.code {
        403 if status.message.contains("quota") => ApiError::new(ErrorCode::QuotaExceeded, message),
        400 | 422 => ApiError::new(ErrorCode::InvalidRequest, message),
        429 | 503 => {
            let after = status.details.as_ref().map_or(1, |d| u64::from(d.retry_after_seconds).max(1));
            ApiError::new(ErrorCode::Overloaded, message).retry_after(Duration::from_secs(after))
        }
        _ => ApiError::new(ErrorCode::KubernetesApiError, message),
    }
}

/// Runs one call to the Kubernetes API under a deadline.
pub async fn within<T>(
    deadline: Duration,
    doing: &str,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<kube::Result<T>, ApiError> {
    tokio::time::timeout(deadline, call).await.map_err(|_| {
        ApiError::new(
            ErrorCode::RequestTimeout,
            format!("{doing}: the Kubernetes API did not answer within {} s", deadline.as_secs_f64()),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_is_never_at_once() {
        assert_eq!(retry_seconds(Duration::ZERO), 1);
        assert_eq!(retry_seconds(Duration::from_millis(1500)), 2);
        assert_eq!(retry_seconds(Duration::from_secs(25)), 25);
    }

    #[test]
    fn kubernetes_refusals_find_their_code() {
        let of = |code: u16, message: &str| {
            let mut status = kube::core::Status::failure(message, "");
            status.code = code;
            from_kube(&kube::Error::Api(Box::new(status)), "creating").code
        };
        assert_eq!(of(403, "exceeded quota: pods=3"), ErrorCode::QuotaExceeded);
        assert_eq!(of(403, "forbidden"), ErrorCode::KubernetesApiError);
        assert_eq!(of(422, "spec.replicas: must be"), ErrorCode::InvalidRequest);
        assert_eq!(of(429, "slow down"), ErrorCode::Overloaded);
    }
}
