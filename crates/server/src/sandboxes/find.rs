//! One sandbox by id: from memory, with one look at Kubernetes when memory has not got it.

use std::sync::Arc;

use api_types::crd::BatchSandbox;
use api_types::names::labels;

use crate::app::App;
use crate::error::{ApiError, from_kube, within};
use crate::labels::is_object_name;

/// Finds it. Memory may be behind another replica's write, so a miss is asked about once.
pub async fn find(app: &App, id: &str) -> Result<Arc<BatchSandbox>, ApiError> {
    if let Some(known) = app.sandboxes.get(id) {
        return Ok(known);
    }
    if !is_object_name(id) {
        return Err(ApiError::sandbox_not_found(id));
    }
    let doing = format!("looking up sandbox {id}");
    let found = within(app.config.limits.kube_timeout, &doing, app.sandbox_api().get_opt(id)).await?;
    match found.map_err(|error| from_kube(&error, &doing))? {
        Some(object) if is_ours(&object) => Ok(Arc::new(object)),
        _ => Err(ApiError::sandbox_not_found(id)),
    }
}

/// Whether the lifecycle API made it: others' BatchSandboxes are not shown, let alone deleted.
pub fn is_ours(object: &BatchSandbox) -> bool {
    object.metadata.labels.as_ref().is_some_and(|l| l.contains_key(labels::SANDBOX_ID))
}
