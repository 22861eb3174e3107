//! Every refusal is `{"code","message"}` with a status of the catalogue.

use std::io;

use api_types::{ErrorBody, ErrorCode};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use crate::claim::ClaimError;
use crate::exec::EngineError;
use crate::paths::PathError;
use crate::tasks::TaskError;

/// A refusal.
#[derive(Debug)]
pub struct ApiError {
    code: ErrorCode,
    message: String,
    content_range: Option<String>,
}

impl ApiError {
    /// A refusal with a code of the catalogue and what was wrong.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), content_range: None }
    }

    /// 400 for a body or parameter.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequestBody, message)
    }

    /// 400 for a parameter that is missing.
    pub fn missing(name: &str) -> Self {
        Self::new(ErrorCode::MissingQuery, format!("the query parameter {name} is missing"))
    }

    /// 416 with the size there is.
    pub fn range(size: u64, message: impl Into<String>) -> Self {
        let content_range = Some(format!("bytes */{size}"));
        Self { content_range, ..Self::new(ErrorCode::InvalidRange, message) }
    }

    /// What the system said of a path.
    pub fn of_io(path: &std::path::Path, error: &io::Error) -> Self {
        let message = format!("{}: {error}", path.display());
        Self::new(io_code(error), message)
    }

    /// Its code.
    pub fn code(&self) -> ErrorCode {
        self.code
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// The code of a system error on a path.
fn io_code(error: &io::Error) -> ErrorCode {
    match error.kind() {
        io::ErrorKind::NotFound => ErrorCode::FileNotFound,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorCode::DiskFull,
        // The path is at fault, not the sandbox.
        io::ErrorKind::IsADirectory
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::InvalidFilename => ErrorCode::InvalidRequestBody,
        _ => ErrorCode::RuntimeError,
    }
}

impl From<PathError> for ApiError {
    fn from(error: PathError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        Self::new(ErrorCode::TooManyExecutions, error.to_string())
    }
}

impl From<TaskError> for ApiError {
    fn from(error: TaskError) -> Self {
        Self::new(error.code, error.message)
    }
}

impl From<ClaimError> for ApiError {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::Refused(code, message) => Self::new(code, message),
            ClaimError::Invalid(message) => Self::invalid(message),
            ClaimError::Store(_) => Self::new(ErrorCode::RuntimeError, error.to_string()),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(ErrorBody::new(self.code, self.message))).into_response();
        if self.code == ErrorCode::BodyTooLarge {
            // The rest of the body is not read, so nothing more can come on this connection.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let range = self.content_range.and_then(|range| HeaderValue::try_from(range).ok());
        if let Some(range) = range {
            response.headers_mut().insert(header::CONTENT_RANGE, range);
        }
        response
    }
}
