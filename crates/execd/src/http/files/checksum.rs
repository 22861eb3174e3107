//! `GET /files/checksum?path=&algorithm=`: what the bytes of files come to.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use axum::Json;
use axum::extract::State;
use http::Uri;
use serde::Serialize;
use sha2::{Digest, Sha256, Sha512};

use super::super::request::Query;
use super::super::{ApiError, Shared};
use super::download::open;
use super::{Who, all_paths, blocking};

/// Bytes that are read at once.
const BUFFER: usize = 256 << 10;

/// What one file comes to.
#[derive(Serialize)]
pub struct Checksum {
    algorithm: &'static str,
    checksum: String,
    size: u64,
}

/// The handler.
pub async fn checksum(
    State(app): State<Shared>,
    who: Who,
    uri: Uri,
) -> Result<Json<BTreeMap<String, Checksum>>, ApiError> {
    let query = Query::of(&uri)?;
    query.required("path")?;
    let of: fn(&Path) -> Result<Checksum, ApiError> = match query.get("algorithm").unwrap_or("sha256") {
        "sha256" => |path| digest::<Sha256>(path, "sha256"),
        "sha512" => |path| digest::<Sha512>(path, "sha512"),
        other => return Err(ApiError::invalid(format!("algorithm must be sha256 or sha512, not {other:?}"))),
    };
    let paths = all_paths(&app, &who, &query)?;
    let each = move || paths.into_iter().map(|(text, path)| Ok((text, of(&path)?))).collect::<Result<_, _>>();
    blocking(&who, each).await.map(Json)
}

fn digest<D: Digest>(path: &Path, algorithm: &'static str) -> Result<Checksum, ApiError> {
    let (mut file, _) = open(path)?;
    let (mut digest, mut buffer, mut size) = (D::new(), vec![0; BUFFER], 0);
    loop {
        let count = file.read(&mut buffer).map_err(|e| ApiError::of_io(path, &e))?;
        if count == 0 {
            break;
        }
        size += count as u64;
        digest.update(buffer.get(..count).unwrap_or_default());
    }
    let checksum = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Checksum { algorithm, checksum, size })
}
