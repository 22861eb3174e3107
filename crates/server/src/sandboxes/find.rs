//! One sandbox by id: from memory, with one look at Kubernetes when memory has not got it; and a change to one.

use std::sync::Arc;

use api_types::crd::BatchSandbox;
use api_types::names::labels;
use kube::api::{Patch, PatchParams};
use serde_json::Value;

use crate::app::App;
use crate::error::{ApiError, from_kube, within};
use crate::labels::is_object_name;

/// Finds it. Memory may be behind another replica's write, so a miss is asked about once.
pub async fn find(app: &App, id: &str) -> Result<Arc<BatchSandbox>, ApiError> {
    if let Some(known) = app.space().sandboxes.get(id) {
        return Ok(known);
    }
    fetch(app, id).await.map(Arc::new)
}

/// Asks Kubernetes for it, whatever memory holds.
pub async fn fetch(app: &App, id: &str) -> Result<BatchSandbox, ApiError> {
    if !is_object_name(id) {
        return Err(ApiError::sandbox_not_found(id));
    }
    let doing = format!("looking up sandbox {id}");
    let found = within(app.config.limits.kube_timeout, &doing, app.sandbox_api().get_opt(id)).await?;
    match found.map_err(|error| from_kube(&error, &doing))? {
        Some(object) if is_ours(&object, app.tenant().map(|t| t.name.as_str())) => Ok(object),
        _ => Err(ApiError::sandbox_not_found(id)),
    }
}

/// Merges a change into a sandbox that was found, and remembers the outcome. `doing` says in an error what was tried.
///
/// The UID goes with the change, so that a namesake that came in between is not meant.
pub async fn patch(
    app: &App,
    id: &str,
    found: &BatchSandbox,
    mut change: Value,
    doing: &str,
) -> Result<BatchSandbox, ApiError> {
    change["metadata"]["uid"] = found.metadata.uid.clone().into();
    let (api, params, change) = (app.sandbox_api(), PatchParams::default(), Patch::Merge(&change));
    let written = within(app.config.limits.kube_timeout, doing, api.patch(id, &params, &change)).await?;
    let written = written.map_err(|error| match &error {
        kube::Error::Api(status) if matches!(status.code, 404 | 409) => ApiError::sandbox_not_found(id),
        _ => from_kube(&error, doing),
    })?;
    app.space().sandboxes.observe(written.clone());
    Ok(written)
}

/// Whether the lifecycle API made it: others' BatchSandboxes are not shown, let alone deleted.
/// Nor are another tenant's.
pub fn is_ours(object: &BatchSandbox, tenant: Option<&str>) -> bool {
    let label = |key: &str| object.metadata.labels.as_ref()?.get(key).map(String::as_str);
    label(labels::SANDBOX_ID).is_some() && (tenant.is_none() || label(labels::TENANT) == tenant)
}
