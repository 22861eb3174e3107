//! `GET /files/watch?path=&recursive=true`: what changes below a path, as a stream.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use api_types::ErrorCode;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::Uri;
use jiff::Timestamp;
use notify::event::{ModifyKind, RenameMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::super::command::events;
use super::super::request::Query;
use super::super::{ApiError, Shared};
use super::{Who, resolve};

/// Streams that there may be at once: each has a thread of its own.
const MAX: usize = 16;
/// Changes that may wait for the reader.
const WAITING: usize = 1024;
/// Time without a change after which a ping is sent.
const PING: Duration = Duration::from_secs(3);

static OPEN: AtomicUsize = AtomicUsize::new(0);

#[derive(Serialize)]
struct Change<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// Where it was, of a move inside.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    timestamp: i64,
}

impl Change<'_> {
    fn encode(&self) -> Bytes {
        let mut text = serde_json::to_vec(self).unwrap_or_default();
        text.extend_from_slice(b"\n\n");
        text.into()
    }
}

fn change(kind: &str, path: Option<&Path>, from: Option<&Path>) -> Bytes {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    Change { kind, path: path.map(text), from: from.map(text), timestamp: Timestamp::now().as_millisecond() }.encode()
}

struct Watch {
    _watcher: RecommendedWatcher,
    _place: Place,
    changes: mpsc::Receiver<notify::Event>,
    missed: Arc<AtomicBool>,
    begun: Option<PathBuf>,
}

struct Place;

impl Place {
    fn take() -> Result<Self, ApiError> {
        if OPEN.fetch_add(1, Ordering::Relaxed) < MAX {
            return Ok(Self);
        }
        OPEN.fetch_sub(1, Ordering::Relaxed);
        Err(ApiError::new(ErrorCode::TooManySessions, format!("{MAX} watches are open already")))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The handler.
pub async fn watch(State(app): State<Shared>, who: Who, uri: Uri) -> Result<Response, ApiError> {
    let query = Query::of(&uri)?;
    let path = resolve(&app, &who, query.required("path")?)?;
    let recursive = match query.get("recursive") {
        None | Some("true") => RecursiveMode::Recursive,
        Some("false") => RecursiveMode::NonRecursive,
        Some(_) => return Err(ApiError::invalid("recursive must be true or false")),
    };
    std::fs::symlink_metadata(&path).map_err(|e| ApiError::of_io(&path, &e))?;
    let place = Place::take()?;
    let (sender, changes) = mpsc::channel(WAITING);
    let missed = Arc::new(AtomicBool::new(false));
    let flag = missed.clone();
    let heard = move |event: notify::Result<notify::Event>| match event {
        Ok(event) if matches!(event.kind, EventKind::Access(_)) => {}
        Ok(event) => {
            if event.need_rescan() || sender.try_send(event).is_err() {
                flag.store(true, Ordering::Relaxed);
            }
        }
        Err(_) => flag.store(true, Ordering::Relaxed),
    };
    let failed =
        |e: notify::Error| ApiError::new(ErrorCode::RuntimeError, format!("cannot watch {}: {e}", path.display()));
    let mut watcher = notify::recommended_watcher(heard).map_err(failed)?;
    // A large tree takes its time.
    let at = path.clone();
    let watcher = super::blocking(&who, move || {
        let failed =
            |e: notify::Error| ApiError::new(ErrorCode::RuntimeError, format!("cannot watch {}: {e}", at.display()));
        watcher.watch(&at, recursive).map_err(failed)?;
        Ok(watcher)
    })
    .await?;
    let state = Watch { _watcher: watcher, _place: place, changes, missed, begun: Some(path) };
    let stream = futures::stream::unfold(state, |mut state| async move {
        if let Some(path) = state.begun.take() {
            return Some((Ok::<_, Infallible>(change("watching", Some(&path), None)), state));
        }
        loop {
            if state.changes.is_empty() && state.missed.swap(false, Ordering::Relaxed) {
                // Changes were not told: the reader has to look again.
                return Some((Ok(change("overflow", None, None)), state));
            }
            let bytes = match timeout(PING, state.changes.recv()).await {
                Ok(Some(event)) => told(&event),
                Ok(None) => return None,
                Err(_) => Some(change("ping", None, None)),
            };
            if let Some(bytes) = bytes {
                return Some((Ok(bytes), state));
            }
        }
    });
    Ok(events(Body::from_stream(stream)))
}

fn told(event: &notify::Event) -> Option<Bytes> {
    let path = event.paths.first().map(PathBuf::as_path);
    Some(match event.kind {
        EventKind::Create(_) | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => change("created", path, None),
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)) => change("removed", path, None),
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => {
            change("moved", event.paths.get(1).map(PathBuf::as_path), path)
        }
        EventKind::Modify(_) => change("modified", path, None),
        EventKind::Any | EventKind::Other | EventKind::Access(_) => return None,
    })
}
