//! `GET /sandboxes/{id}`.

use api_types::lifecycle::Sandbox;
use axum::Json;

use super::find::find;
use super::view;
use crate::app::App;
use crate::error::ApiError;
use crate::front::path::Path;

/// Answers from memory.
pub async fn handle(app: App, Path(id): Path<String>) -> Result<Json<Sandbox>, ApiError> {
    Ok(Json(view::sandbox(&*find(&app, &id).await?)))
}
