//! `pods/log`, `pods/exec`, `pods/attach`, `pods/portforward`.

use std::sync::Arc;

use http::Response;
use hyper::upgrade::OnUpgrade;

use super::body::ApiBody;
use super::query::Query;
use crate::core::Core;
use crate::error::{ApiError, Result};
use crate::verbs::Target;

pub(crate) async fn open(
    _core: &Arc<Core>,
    _target: &Target,
    sub: &str,
    _parts: &http::request::Parts,
    _query: &Query,
    _upgrade: Option<OnUpgrade>,
) -> Result<Response<ApiBody>> {
    Err(ApiError::not_implemented(sub))
}

pub(crate) async fn log(_core: &Arc<Core>, _target: &Target, _query: &Query) -> Result<Response<ApiBody>> {
    Err(ApiError::not_implemented("log"))
}
