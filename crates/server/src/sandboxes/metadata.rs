//! `PATCH /sandboxes/{id}/metadata`: a merge patch, so that concurrent changes of other keys stand.

use std::collections::BTreeMap;

use api_types::lifecycle::Sandbox;
use axum::Json as Answer;
use axum::extract::{Path, State};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::find::find;
use super::validate::check_metadata;
use super::view;
use crate::app::App;
use crate::error::{ApiError, from_kube, within};
use crate::front::body::Json;

/// Sets and takes away labels of the caller.
pub async fn handle(
    State(app): State<App>,
    Path(id): Path<String>,
    Json { value: changes, .. }: Json<BTreeMap<String, Option<String>>>,
) -> Result<Answer<Sandbox>, ApiError> {
    check_metadata(changes.iter().map(|(k, v)| (k.as_str(), v.as_deref())))?;
    let object = find(&app, &id).await?;
    if changes.is_empty() {
        return Ok(Answer(view::sandbox(&object)));
    }
    let doing = format!("changing the metadata of sandbox {id}");
    let patch = json!({"metadata": {"uid": object.metadata.uid, "labels": changes}});
    let api = app.sandbox_api();
    let params = PatchParams::default();
    let written =
        within(app.config.limits.kube_timeout, &doing, api.patch(&id, &params, &Patch::Merge(&patch))).await?;
    let written = written.map_err(|error| match &error {
        kube::Error::Api(status) if matches!(status.code, 404 | 409) => ApiError::sandbox_not_found(&id),
        _ => from_kube(&error, &doing),
    })?;
    let answer = view::sandbox(&written);
    app.sandboxes.observe(written);
    Ok(Answer(answer))
}
