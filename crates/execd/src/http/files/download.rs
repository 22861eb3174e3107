//! `GET /files/download`: the whole file, a range of its bytes, or a window of its lines.

use std::io::SeekFrom;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;

use api_types::ErrorCode;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::super::request::Query;
use super::super::{ApiError, Shared};
use super::{Who, blocking, resolve};
use crate::files::range::{self, Range};
use crate::files::window::LineWindow;

/// Bytes that are read at once.
const BUFFER: usize = 256 << 10;
/// What a file name may have unescaped in `filename*`.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_').remove(b'~');

/// The handler.
pub async fn download(State(app): State<Shared>, who: Who, uri: Uri, headers: HeaderMap) -> Result<Response, ApiError> {
    let query = Query::of(&uri)?;
    let path = resolve(&app, &who, query.required("path")?)?;
    let (offset, limit) = (positive(&query, "offset")?, positive(&query, "limit")?);
    let lines = offset.is_some() || limit.is_some();
    let wanted = headers.get(header::RANGE).map(|v| v.to_str().unwrap_or_default().to_owned());
    if lines && wanted.is_some() {
        return Err(ApiError::invalid("give either offset and limit, or a Range header"));
    }
    let at = path.clone();
    let (file, meta) = blocking(&who, move || open(&at)).await?;
    let file = tokio::fs::File::from_std(file);
    if lines {
        return Ok(window(file, LineWindow::new(offset.unwrap_or(1), limit)));
    }
    let (size, modified) = (meta.len(), meta.modified().ok());
    if wanted.is_none() && unchanged(&headers, modified) {
        return Ok(StatusCode::NOT_MODIFIED.into_response());
    }
    match wanted.map_or(Range::Whole, |header| range::parse(&header, size)) {
        Range::Malformed => Err(ApiError::range(size, "the Range header is none of bytes=A-B, bytes=A- and bytes=-N")),
        Range::Outside => Err(ApiError::range(size, format!("the range begins after the file's {size} bytes"))),
        Range::Whole if size == 0 => unsized_bytes(file, &path).await,
        Range::Whole => Ok(bytes(file, &path, size, modified, None).await?),
        Range::Part(from, to) => Ok(bytes(file, &path, size, modified, Some((from, to))).await?),
    }
}

fn positive(query: &Query, name: &str) -> Result<Option<u64>, ApiError> {
    match query.number(name)? {
        Some(0) => Err(ApiError::invalid(format!("{name} must be at least 1"))),
        number => Ok(number),
    }
}

/// Opens a regular file; a pipe without a writer must not hold the call.
pub fn open(path: &Path) -> Result<(std::fs::File, std::fs::Metadata), ApiError> {
    let file = std::fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path);
    let file = file.map_err(|e| ApiError::of_io(path, &e))?;
    let meta = file.metadata().map_err(|e| ApiError::of_io(path, &e))?;
    if !meta.is_file() {
        let what = if meta.is_dir() { "a directory" } else { "no regular file" };
        return Err(ApiError::invalid(format!("{} is {what}", path.display())));
    }
    Ok((file, meta))
}

fn unchanged(headers: &HeaderMap, modified: Option<SystemTime>) -> bool {
    let since = headers
        .get(header::IF_MODIFIED_SINCE)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| httpdate::parse_http_date(v).ok());
    // The header has whole seconds.
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).map(|d| d.as_secs()).ok();
    since.zip(modified).is_some_and(|(since, modified)| seconds(modified) <= seconds(since))
}

/// An empty file, or one of the kernel's, which has no size and yet bytes.
async fn unsized_bytes(mut file: tokio::fs::File, path: &Path) -> Result<Response, ApiError> {
    let mut first = vec![0; BUFFER];
    let count = file.read(&mut first).await.map_err(|e| ApiError::of_io(path, &e))?;
    first.truncate(count);
    let body = if count == 0 {
        Body::empty()
    } else {
        Body::from_stream(ReaderStream::with_capacity(std::io::Cursor::new(first).chain(file), BUFFER))
    };
    let mut headers = vec![(header::CONTENT_TYPE, "application/octet-stream".to_owned())];
    headers.push((header::CONTENT_DISPOSITION, disposition(path)));
    let headers: HeaderMap =
        headers.into_iter().filter_map(|(name, value)| Some((name, value.try_into().ok()?))).collect();
    Ok((headers, body).into_response())
}

async fn bytes(
    mut file: tokio::fs::File,
    path: &Path,
    size: u64,
    modified: Option<SystemTime>,
    part: Option<(u64, u64)>,
) -> Result<Response, ApiError> {
    let (from, length) = part.map_or((0, size), |(from, to)| (from, to - from + 1));
    if from > 0 {
        file.seek(SeekFrom::Start(from)).await.map_err(|e| ApiError::new(ErrorCode::RuntimeError, e.to_string()))?;
    }
    let body = Body::from_stream(ReaderStream::with_capacity(file.take(length), BUFFER));
    let status = if part.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let mut response = (status, body).into_response();
    let mut set = |name, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    };
    set(header::CONTENT_TYPE, "application/octet-stream".to_owned());
    set(header::CONTENT_LENGTH, length.to_string());
    set(header::ACCEPT_RANGES, "bytes".to_owned());
    set(header::CONTENT_DISPOSITION, disposition(path));
    if let Some(modified) = modified {
        set(header::LAST_MODIFIED, httpdate::fmt_http_date(modified));
    }
    if let Some((from, to)) = part {
        set(header::CONTENT_RANGE, format!("bytes {from}-{to}/{size}"));
    }
    Ok(response)
}

fn disposition(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\\') || c == ' ') {
        return format!("attachment; filename=\"{name}\"");
    }
    let encoded = utf8_percent_encode(&name, PLAIN);
    format!("attachment; filename=\"{encoded}\"; filename*=UTF-8''{encoded}")
}

fn window(file: tokio::fs::File, window: LineWindow) -> Response {
    let stream = futures::stream::try_unfold((file, window), |(mut file, mut window)| async move {
        let (mut buffer, mut out) = (vec![0; BUFFER], Vec::new());
        while out.is_empty() && !window.done() {
            let count = file.read(&mut buffer).await?;
            if count == 0 {
                return Ok::<_, std::io::Error>(None);
            }
            window.push(buffer.get(..count).unwrap_or_default(), &mut out);
        }
        Ok((!out.is_empty()).then_some((out, (file, window))))
    });
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], Body::from_stream(stream)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_header() {
        assert_eq!(disposition(Path::new("/a/b c.txt")), "attachment; filename=\"b c.txt\"");
        let odd = disposition(Path::new("/a/é\".txt"));
        assert_eq!(odd, "attachment; filename=\"%C3%A9%22.txt\"; filename*=UTF-8''%C3%A9%22.txt");
    }
}
