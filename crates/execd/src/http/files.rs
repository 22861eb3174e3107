//! `/files`: what is there, changes, and the ways for bytes. With `/v1/filesystem/{uid}/{gid}` before it,
//! in the name of that user.

pub mod archive;
mod checksum;
mod download;
mod upload;
mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use api_types::ErrorCode;
use api_types::execd::{FileInfo, MoveItem, Permission, ReplaceItem, Replaced};
use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{StatusCode, Uri};

pub use checksum::checksum;
pub use download::download;
pub use upload::upload;
pub use watch::watch;

use super::request::{Query, json};
use super::{ApiError, App, Shared};
use crate::files::change::{self, Ownership};
use crate::files::glob::Pattern;
use crate::files::identity::Identity;
use crate::files::info;
use crate::paths;
use crate::users::Users;

/// Entries that a search gives at most.
const SEARCH_LIMIT: usize = 100_000;

/// In whose name file work is done; the daemon's own if none.
#[derive(Debug, Clone, Default)]
pub struct Who(Option<Identity>);

impl<S: Sync> FromRequestParts<S> for Who {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(parts.extensions.get::<Identity>().cloned()))
    }
}

/// Takes `/v1/filesystem/{uid}/{gid}` off the front of a path to files or directories.
pub fn strip_identity(uri: &Uri) -> Option<(Identity, Uri)> {
    let rest = uri.path().strip_prefix("/v1/filesystem/")?;
    let (uid, rest) = rest.split_once('/')?;
    let (gid, rest) = rest.split_once('/')?;
    let identity = Identity { uid: uid.parse().ok()?, gid: gid.parse().ok()? };
    if !matches!(rest.split('/').next(), Some("files" | "directories")) {
        return None;
    }
    let text = uri.query().map_or_else(|| format!("/{rest}"), |query| format!("/{rest}?{query}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(text.try_into().ok()?);
    Some((identity, Uri::from_parts(parts).ok()?))
}

/// What is left of such a path that names no user, or nothing that is done in its name.
pub async fn no_identity() -> ApiError {
    ApiError::invalid("use /v1/filesystem/UID/GID/files/... or .../directories/..., with two numbers")
}

/// Runs file work on the bounded pool of blocking threads, in somebody's name.
pub async fn blocking<T: Send + 'static>(
    who: &Who,
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let identity = who.0.clone();
    let named = move || match identity {
        None => work(),
        Some(identity) => identity.assume(work).unwrap_or_else(|e| {
            let text = format!("cannot act as user {} and group {}: {e}", identity.uid, identity.gid);
            Err(ApiError::new(ErrorCode::RuntimeError, text))
        }),
    };
    let done = tokio::task::spawn_blocking(named).await;
    done.unwrap_or_else(|e| Err(ApiError::new(ErrorCode::RuntimeError, format!("the work was given up: {e}"))))
}

/// The absolute path behind a client's text; `~` is the home of whoever it is done for.
pub fn resolve(app: &App, who: &Who, text: &str) -> Result<PathBuf, ApiError> {
    let mut env = app.sandbox_env();
    let home = who
        .0
        .as_ref()
        .filter(|_| text.starts_with(['~', '$']))
        .and_then(|identity| Users::load().user(identity.uid).map(|user| user.home.clone()));
    if let Some(home) = home {
        env.insert("HOME".into(), home.into());
    }
    Ok(paths::file_path(text, &env, &app.cwd)?)
}

/// Every `path` of a query.
pub fn all_paths(app: &App, who: &Who, query: &Query) -> Result<Vec<(String, PathBuf)>, ApiError> {
    query.all("path").map(|text| Ok((text.to_owned(), resolve(app, who, text)?))).collect()
}

/// `GET /files/info?path=&path=`.
pub async fn info(State(app): State<Shared>, who: Who, uri: Uri) -> Result<Json<BTreeMap<String, FileInfo>>, ApiError> {
    let paths = all_paths(&app, &who, &Query::of(&uri)?)?;
    blocking(&who, move || {
        let names = Users::load().names();
        let described = paths.into_iter().map(|(text, path)| {
            let info = info::describe(&path, &names).map_err(|e| ApiError::of_io(&path, &e))?;
            Ok((text, info))
        });
        described.collect::<Result<_, _>>().map(Json)
    })
    .await
}

/// `DELETE /files?path=&path=`.
pub async fn delete(State(app): State<Shared>, who: Who, uri: Uri) -> Result<StatusCode, ApiError> {
    let paths = all_paths(&app, &who, &Query::of(&uri)?)?;
    blocking(&who, move || {
        let each = |(_, path): &(String, PathBuf)| change::remove_file(path).map_err(|e| ApiError::of_io(path, &e));
        paths.iter().try_for_each(each).map(|()| StatusCode::OK)
    })
    .await
}

/// `POST /files/permissions`.
pub async fn permissions(State(app): State<Shared>, who: Who, body: Body) -> Result<StatusCode, ApiError> {
    let wanted: BTreeMap<String, Permission> = json(body).await?;
    let wanted = with_owners(&app, &who, wanted)?;
    blocking(&who, move || {
        let each = |(path, owner): &(PathBuf, Ownership)| owner.apply(path).map_err(|e| ApiError::of_io(path, &e));
        wanted.iter().try_for_each(each).map(|()| StatusCode::OK)
    })
    .await
}

/// Paths and what is to be set on them; all are understood before the first is changed.
pub fn with_owners(
    app: &App,
    who: &Who,
    wanted: BTreeMap<String, Permission>,
) -> Result<Vec<(PathBuf, Ownership)>, ApiError> {
    let users = Users::load();
    let each = |(text, permission): (String, Permission)| {
        let ownership = Ownership::of(&permission, &users).map_err(|e| ApiError::invalid(format!("{text}: {e}")))?;
        Ok((resolve(app, who, &text)?, ownership))
    };
    wanted.into_iter().map(each).collect()
}

/// `POST /files/mv`.
pub async fn mv(State(app): State<Shared>, who: Who, body: Body) -> Result<StatusCode, ApiError> {
    let items: Vec<MoveItem> = json(body).await?;
    let pairs = items.iter().map(|item| Ok((resolve(&app, &who, &item.src)?, resolve(&app, &who, &item.dest)?)));
    let pairs = pairs.collect::<Result<Vec<_>, ApiError>>()?;
    blocking(&who, move || {
        for (from, to) in &pairs {
            change::rename(from, to).map_err(|e| {
                let at = if e.kind() == std::io::ErrorKind::AlreadyExists { to } else { from };
                ApiError::of_io(at, &e)
            })?;
        }
        Ok(StatusCode::OK)
    })
    .await
}

/// `GET /files/search?path=&pattern=`.
pub async fn search(State(app): State<Shared>, who: Who, uri: Uri) -> Result<Json<Vec<FileInfo>>, ApiError> {
    let query = Query::of(&uri)?;
    let root = resolve(&app, &who, query.required("path")?)?;
    let pattern = Pattern::new(query.get("pattern").unwrap_or("**")).map_err(ApiError::invalid)?;
    blocking(&who, move || walk(&root, &pattern).map(Json)).await
}

fn walk(root: &Path, pattern: &Pattern) -> Result<Vec<FileInfo>, ApiError> {
    let names = Users::load().names();
    std::fs::symlink_metadata(root).map_err(|e| ApiError::of_io(root, &e))?;
    // The root is entered even if it is a link; links below it are named only.
    let walk = walkdir::WalkDir::new(root).follow_links(false).follow_root_links(true).sort_by_file_name();
    let mut found = Vec::new();
    for entry in walk.into_iter().flatten() {
        let below = entry.path().strip_prefix(root).unwrap_or(entry.path());
        let below = if below.as_os_str().is_empty() { Path::new(entry.file_name()) } else { below };
        let directory = entry.file_type().is_dir() || (entry.depth() == 0 && entry.path().is_dir());
        if directory || !pattern.matches(below) {
            continue;
        }
        if found.len() == SEARCH_LIMIT {
            let text = format!(
                "more than {SEARCH_LIMIT} files match; search below a deeper directory or by a narrower pattern"
            );
            return Err(ApiError::invalid(text));
        }
        found.extend(info::describe(entry.path(), &names).ok());
    }
    Ok(found)
}

/// `POST /files/replace?verbose=`.
pub async fn replace(State(app): State<Shared>, who: Who, uri: Uri, body: Body) -> Result<Response, ApiError> {
    let verbose = Query::of(&uri)?.get("verbose") == Some("true");
    let items: BTreeMap<String, ReplaceItem> = json(body).await?;
    let mut work = Vec::new();
    for (text, item) in items {
        if item.old.is_empty() {
            return Err(ApiError::invalid(format!("{text}: old is empty")));
        }
        work.push((resolve(&app, &who, &text)?, text, item));
    }
    let counts = blocking(&who, move || {
        let mut counts = BTreeMap::new();
        let mut changes = Vec::new();
        // All is read and written beside its place before the first file changes.
        for (path, text, item) in work {
            let (replaced_count, change) =
                change::prepare(&path, &item.old, &item.new).map_err(|e| ApiError::of_io(&path, &e))?;
            counts.insert(text, Replaced { replaced_count });
            changes.extend(change.map(|change| (path, change)));
        }
        for (path, change) in changes {
            change.finish(&Ownership::default()).map_err(|e| ApiError::of_io(&path, &e))?;
        }
        Ok(counts)
    })
    .await?;
    Ok(if verbose { Json(counts).into_response() } else { StatusCode::OK.into_response() })
}
