//! `GET` of one object.

use std::sync::Arc;

use super::Target;
use crate::core::Core;
use crate::error::Result;
use crate::store::Stored;

/// One object as it is stored.
pub(crate) fn get(core: &Core, target: &Target) -> Result<Arc<Stored>> {
    core.store.get(&target.key()).ok_or_else(|| target.not_found())
}
