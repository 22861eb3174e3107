//! `POST /files/upload`: any number of pairs `metadata`, `file`, streamed to the disk as they come.

use std::collections::VecDeque;

use api_types::ErrorCode;
use api_types::execd::UploadMetadata;
use axum::body::Body;
use axum::extract::State;
use http::{HeaderMap, StatusCode, header};
use multer::{Constraints, Field, Multipart, SizeLimit};

use super::super::request::lively;
use super::super::{ApiError, App, Shared};
use super::{Who, blocking, resolve};
use crate::files::atomic::Replacement;
use crate::files::change::Ownership;
use crate::files::sparse::SparseWriter;
use crate::users::Users;

/// Largest `metadata` part.
const METADATA_LIMIT: u64 = 64 << 10;
/// `metadata` parts that may wait for their files.
const WAITING: usize = 1024;
/// Bytes that are written at once.
const BUFFER: usize = 1 << 20;

/// The handler.
pub async fn upload(
    State(app): State<Shared>,
    who: Who,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let boundary = multer::parse_boundary(kind)
        .map_err(|e| ApiError::new(ErrorCode::InvalidFile, format!("not a multipart form: {e}")))?;
    let limits = SizeLimit::new().for_field("metadata", METADATA_LIMIT);
    take(&app, &who, Multipart::with_constraints(lively(body), boundary, Constraints::new().size_limit(limits))).await
}

async fn take(app: &App, who: &Who, mut form: Multipart<'_>) -> Result<StatusCode, ApiError> {
    let mut waiting: VecDeque<UploadMetadata> = VecDeque::new();
    let mut files = 0usize;
    while let Some(field) = form.next_field().await.map_err(broken)? {
        match field.name() {
            Some("metadata") if waiting.len() == WAITING => {
                return Err(ApiError::new(
                    ErrorCode::InvalidFile,
                    format!("more than {WAITING} metadata parts wait for their files"),
                ));
            }
            Some("metadata") => waiting.push_back(metadata(field).await?),
            Some("file") => {
                let Some(metadata) = waiting.pop_front() else {
                    return Err(ApiError::new(
                        ErrorCode::InvalidFileMetadata,
                        "a file part has no metadata part before it",
                    ));
                };
                store(app, who, metadata, field).await?;
                files += 1;
            }
            // Other parts mean nothing here; their bytes pass by.
            _ => {}
        }
    }
    match (files, waiting.len()) {
        (0, 0) => Err(ApiError::new(ErrorCode::InvalidFile, "the form has no parts metadata and file")),
        (_, 0) => Ok(StatusCode::OK),
        (_, left) => {
            Err(ApiError::new(ErrorCode::InvalidFileContent, format!("{left} metadata parts have no file part")))
        }
    }
}

fn broken(error: multer::Error) -> ApiError {
    match error {
        multer::Error::FieldSizeExceeded { .. } => ApiError::new(
            ErrorCode::InvalidFileMetadata,
            format!("a metadata part is larger than {METADATA_LIMIT} bytes"),
        ),
        other => ApiError::new(ErrorCode::InvalidFile, format!("the form broke off or is none: {other}")),
    }
}

async fn metadata(field: Field<'_>) -> Result<UploadMetadata, ApiError> {
    let bytes = field.bytes().await.map_err(broken)?;
    let wrong = |text: String| ApiError::new(ErrorCode::InvalidFileMetadata, text);
    let metadata: UploadMetadata = serde_json::from_slice(&bytes).map_err(|e| wrong(format!("metadata: {e}")))?;
    if metadata.path.is_empty() {
        return Err(wrong("metadata: path is missing or empty".to_owned()));
    }
    Ok(metadata)
}

/// Writes one file beside its place and puts it there. If the connection breaks, this future is
/// dropped, and with it what was written.
async fn store(app: &App, who: &Who, metadata: UploadMetadata, mut field: Field<'_>) -> Result<(), ApiError> {
    let path = resolve(app, who, &metadata.path)?;
    let at = path.clone();
    let (replacement, ownership, file) = blocking(who, move || {
        let ownership = Ownership::of(&metadata.permission, &Users::load());
        let ownership =
            ownership.map_err(|e| ApiError::new(ErrorCode::InvalidFileMetadata, format!("metadata: {e}")))?;
        let (replacement, file) = Replacement::begin(&at).map_err(|e| ApiError::of_io(&at, &e))?;
        Ok((replacement, ownership, file))
    })
    .await?;
    let mut writer = SparseWriter::new(file);
    let mut waiting = Vec::new();
    loop {
        let bytes = field.chunk().await.map_err(broken)?;
        let last = bytes.is_none();
        if let Some(bytes) = bytes {
            waiting.extend_from_slice(&bytes);
        }
        if waiting.len() < BUFFER && !last {
            continue;
        }
        let (piece, at) = (std::mem::take(&mut waiting), path.clone());
        writer = blocking(who, move || {
            writer.write(&piece).map_err(|e| ApiError::of_io(&at, &e))?;
            Ok(writer)
        })
        .await?;
        if last {
            break;
        }
    }
    let at = path.clone();
    blocking(who, move || writer.finish().map_err(|e| ApiError::of_io(&at, &e))).await?;
    blocking(who, move || replacement.finish(&ownership).map_err(|e| ApiError::of_io(&path, &e))).await
}
