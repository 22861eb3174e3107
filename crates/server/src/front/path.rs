//! Parameters of a path; one that is no UTF-8 is refused as every wrong parameter is.

use axum::extract::FromRequestParts;
use axum::extract::Path as Raw;
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::app::App;
use crate::error::ApiError;

/// The parameters, decoded.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let Raw(value) = Raw::<T>::from_request_parts(parts, app)
            .await
            .map_err(|rejection| ApiError::field("path", rejection.body_text()))?;
        Ok(Self(value))
    }
}
