//! `/directories/archive?path=`: a directory as one tar stream, out by GET and in by POST.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use api_types::ErrorCode;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;
use http::{Uri, header};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};

use super::super::request::{Query, lively};
use super::super::{ApiError, Shared};
use super::{Who, blocking, resolve};
use crate::files::archive::{ArchiveError, pack, unpack};

/// Bytes that go from one side to the other at once, and how many such pieces may wait.
const PIECE: usize = 256 << 10;
/// See `PIECE`.
const WAITING: usize = 4;
/// Archives at once: each holds one of the few threads for file work.
const MAX: usize = 3;

static ROOM: std::sync::LazyLock<Arc<Semaphore>> = std::sync::LazyLock::new(|| Arc::new(Semaphore::new(MAX)));

struct Out {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    piece: BytesMut,
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.pieces.blocking_send(Ok(self.piece.split().freeze())).map_err(gone)
    }
}

/// `GET`.
pub async fn download(State(app): State<Shared>, who: Who, uri: Uri) -> Result<Response, ApiError> {
    let path = resolve(&app, &who, Query::of(&uri)?.required("path")?)?;
    let root = directory(&who, path).await?;
    let room = ROOM.clone().acquire_owned().await;
    let (pieces, received) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let (errors, _room) = (pieces.clone(), room);
        let work = move || {
            let mut out = Out { pieces, piece: BytesMut::new() };
            pack(&root, &mut out).and_then(|()| out.flush()).map_err(|e| ApiError::of_io(&root, &e))
        };
        if let Err(error) = blocking(&who, work).await {
            // An answer that breaks off is all that can still be said.
            let _ = errors.send(Err(io::Error::other(error.to_string()))).await;
        }
    });
    let body = Body::from_stream(futures::stream::unfold(received, |mut received| async move {
        received.recv().await.map(|piece| (piece, received))
    }));
    Ok(([(header::CONTENT_TYPE, "application/x-tar")], body).into_response())
}

async fn directory(who: &Who, path: PathBuf) -> Result<PathBuf, ApiError> {
    blocking(who, move || {
        let meta = std::fs::metadata(&path).map_err(|e| ApiError::of_io(&path, &e))?;
        if !meta.is_dir() {
            return Err(ApiError::invalid(format!("{} is not a directory", path.display())));
        }
        Ok(path)
    })
    .await
}

struct In {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for In {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let count = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(buffer.get_mut(..count).unwrap_or_default());
        Ok(count)
    }
}

/// `POST`.
pub async fn upload(State(app): State<Shared>, who: Who, uri: Uri, body: Body) -> Result<Json<Value>, ApiError> {
    let target = resolve(&app, &who, Query::of(&uri)?.required("path")?)?;
    let _room = ROOM.acquire().await;
    let (sender, pieces) = mpsc::channel(WAITING);
    let mut body = lively(body);
    let feed = async move {
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| io::Error::other(format!("the body broke off: {error}")));
            if sender.send(piece).await.is_err() {
                break;
            }
        }
    };
    let work = blocking(&who, move || {
        unpack(In { pieces, piece: Bytes::new() }, &target).map_err(|error| match error {
            ArchiveError::Archive(text) => ApiError::new(ErrorCode::InvalidFile, text),
            ArchiveError::System(error) => ApiError::of_io(&target, &error),
        })
    });
    let (entries, ()) = tokio::join!(work, feed);
    Ok(Json(json!({"entries": entries?})))
}
