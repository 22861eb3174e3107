//! Who owns which field: `metadata.managedFields`.

use serde_json::Value;

use crate::core::Core;
use crate::error::Result;
use crate::verbs::{Target, WriteOptions};

/// How a write came about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'a> {
    /// A create, update or patch: what changed is owned by the writer.
    Update,
    /// A server-side apply of this configuration.
    Apply(&'a Value),
}

/// Brings `new.metadata.managedFields` up to date.
pub(crate) fn record(
    _core: &Core,
    _target: &Target,
    _old: Option<&Value>,
    _new: &mut Value,
    _options: &WriteOptions,
    _source: &Source<'_>,
) -> Result<()> {
    Ok(())
}

/// Whether the owners differ in more than the times of their entries.
pub(crate) fn owners_changed(_old: &Value, _new: &Value) -> bool {
    false
}
