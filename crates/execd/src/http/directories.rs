//! `/directories`: list, make, remove.

use std::collections::BTreeMap;
use std::path::PathBuf;

use api_types::execd::{FileInfo, Permission};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use http::{StatusCode, Uri};

use super::files::{Who, all_paths, blocking, resolve, with_owners};
use super::request::{Query, json};
use super::{ApiError, Shared};
use crate::files::change::{self, Ownership};
use crate::files::info;
use crate::users::Users;

/// `GET /directories/list?path=&depth=`.
pub async fn list(State(app): State<Shared>, who: Who, uri: Uri) -> Result<Json<Vec<FileInfo>>, ApiError> {
    let query = Query::of(&uri)?;
    let path = resolve(&app, &who, query.required("path")?)?;
    let depth = usize::try_from(query.number("depth")?.unwrap_or(1)).unwrap_or(usize::MAX);
    blocking(&who, move || {
        let meta = std::fs::symlink_metadata(&path).map_err(|e| ApiError::of_io(&path, &e))?;
        if !meta.is_dir() {
            return Err(ApiError::invalid(format!("{} is not a directory", path.display())));
        }
        info::list(&path, depth, &Users::load().names()).map(Json).map_err(|e| ApiError::of_io(&path, &e))
    })
    .await
}

/// `POST /directories`.
pub async fn create(State(app): State<Shared>, who: Who, body: Body) -> Result<StatusCode, ApiError> {
    let wanted: BTreeMap<String, Permission> = json(body).await?;
    let wanted = with_owners(&app, &who, wanted)?;
    blocking(&who, move || {
        let each = |(path, owner): &(PathBuf, Ownership)| {
            change::make_directory(path, owner).map_err(|e| ApiError::of_io(path, &e))
        };
        wanted.iter().try_for_each(each).map(|()| StatusCode::OK)
    })
    .await
}

/// `DELETE /directories?path=&path=`.
pub async fn delete(State(app): State<Shared>, who: Who, uri: Uri) -> Result<StatusCode, ApiError> {
    let paths = all_paths(&app, &who, &Query::of(&uri)?)?;
    blocking(&who, move || {
        let each = |(_, path): &(String, PathBuf)| change::remove_all(path).map_err(|e| ApiError::of_io(path, &e));
        paths.iter().try_for_each(each).map(|()| StatusCode::OK)
    })
    .await
}
