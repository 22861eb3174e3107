//! `PATCH /sandboxes/{id}/metadata`: a merge patch, so that concurrent changes of other keys stand.

use std::collections::BTreeMap;

use api_types::lifecycle::Sandbox;
use axum::Json as Answer;
use serde_json::json;

use super::find::{find, patch};
use super::validate::check_metadata;
use super::view;
use crate::app::App;
use crate::error::ApiError;
use crate::front::body::Json;
use crate::front::path::Path;

/// Sets and takes away labels of the caller.
pub async fn handle(
    app: App,
    Path(id): Path<String>,
    Json { value: changes, .. }: Json<BTreeMap<String, Option<String>>>,
) -> Result<Answer<Sandbox>, ApiError> {
    check_metadata(changes.iter().map(|(k, v)| (k.as_str(), v.as_deref())))?;
    let object = find(&app, &id).await?;
    if changes.is_empty() {
        return Ok(Answer(view::sandbox(&object)));
    }
    let doing = format!("changing the metadata of sandbox {id}");
    let written = patch(&app, &id, &object, json!({"metadata": {"labels": changes}}), &doing).await?;
    Ok(Answer(view::sandbox(&written)))
}
