//! Server-side apply.

use crate::core::Core;
use crate::error::ApiError;
use crate::verbs::{Answer, Target, WriteOptions};

/// Applies a configuration.
pub(crate) fn apply(_core: &Core, _target: &Target, _body: &[u8], _options: &WriteOptions) -> Answer {
    Err(ApiError::not_implemented("server-side apply"))
}
