//! Reading: whole, in part, as a stream.

use std::{
    ops::{Bound, RangeBounds},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream::BoxStream};
use reqwest::{Method, StatusCode, header};
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

use super::{Files, MAX_IN_MEMORY};
use crate::{
    Error, Result, body,
    transport::{Answer, Call, Retry},
};

const HINT: &str = "stream the file instead";

impl Files {
    /// The bytes of a file of at most 256 MiB.
    pub async fn read(&self, path: &str) -> Result<Bytes> {
        let call = self.execd.call("read file", Retry::Idempotent);
        // A large file may take longer than a request; the size limit bounds it.
        let answer = self.download(Call { streaming: true, ..call }, path, None).await?;
        let idle = self.execd.stream_idle_timeout();
        collect(answer, idle).await
    }

    /// The text of a file of at most 256 MiB.
    pub async fn read_text(&self, path: &str) -> Result<String> {
        let bytes = self.read(path).await?;
        String::from_utf8(bytes.into()).map_err(|e| {
            Error::invalid(format!(
                "read file: {path} is no UTF-8 text from byte {} on; read it as bytes",
                e.utf8_error().valid_up_to()
            ))
        })
    }

    /// Some bytes of a file. What lies beyond its end is left out.
    ///
    /// ```no_run
    /// # async fn f(files: opensandbox::Files) -> opensandbox::Result<()> {
    /// let head = files.read_range("/var/log/app.log", ..4096).await?;
    /// let rest = files.read_range("/var/log/app.log", 4096..).await?;
    /// # let _ = (head, rest); Ok(()) }
    /// ```
    pub async fn read_range(&self, path: &str, range: impl RangeBounds<u64>) -> Result<Bytes> {
        let Some(range) = http_range(&range) else { return Ok(Bytes::new()) };
        let call = self.execd.call("read file", Retry::Idempotent);
        let answer = self.download(call, path, Some(&range)).await;
        let answer = match answer {
            // Beyond the end there is nothing.
            Err(error) if error.status() == Some(416) => return Ok(Bytes::new()),
            answer => answer?,
        };
        if answer.response.status() != StatusCode::PARTIAL_CONTENT {
            return Err(Error::protocol("read file", "the whole file came instead of the range"));
        }
        body::bytes(answer, MAX_IN_MEMORY, HINT).await
    }

    /// A file of any size, piece by piece.
    ///
    /// ```no_run
    /// # async fn f(files: opensandbox::Files) -> anyhow::Result<()> {
    /// let mut remote = files.stream("/data/large.bin").await?.into_async_read();
    /// let mut local = tokio::fs::File::create("large.bin").await?;
    /// tokio::io::copy(&mut remote, &mut local).await?;
    /// # Ok(()) }
    /// ```
    pub async fn stream(&self, path: &str) -> Result<FileStream> {
        let call = Call { streaming: true, ..self.execd.call("read file", Retry::Idempotent) };
        let answer = self.download(call, path, None).await?;
        Ok(FileStream::new(answer, self.execd.stream_idle_timeout()))
    }

    async fn download(&self, call: Call, path: &str, range: Option<&str>) -> Result<Answer> {
        self.execd
            .send(call, Method::GET, "/files/download", |request| {
                let request = request.query(&[("path", path)]);
                match range {
                    Some(range) => request.header(header::RANGE, range),
                    None => request,
                }
            })
            .await
    }
}

async fn collect(answer: Answer, idle: Duration) -> Result<Bytes> {
    let mut stream = FileStream::new(answer, idle);
    let too_large = Error::TooLarge { operation: "read file", limit: MAX_IN_MEMORY, hint: HINT };
    if stream.size.is_some_and(|size| size > MAX_IN_MEMORY) {
        return Err(too_large);
    }
    let mut all = bytes::BytesMut::new();
    while let Some(chunk) = stream.try_next().await? {
        if (all.len() + chunk.len()) as u64 > MAX_IN_MEMORY {
            return Err(too_large);
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all.freeze())
}

/// The value of a `Range` header; none for a range without bytes.
fn http_range(range: &impl RangeBounds<u64>) -> Option<String> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.checked_add(1)?,
        Bound::Unbounded => 0,
    };
    let last = match range.end_bound() {
        Bound::Included(last) => Some(*last),
        Bound::Excluded(end) => Some(end.checked_sub(1)?),
        Bound::Unbounded => None,
    };
    match last {
        Some(last) if last < start => None,
        Some(last) => Some(format!("bytes={start}-{last}")),
        None => Some(format!("bytes={start}-")),
    }
}

/// The bytes of a file, piece by piece. An end before the file's size is an error.
pub struct FileStream {
    size: Option<u64>,
    chunks: BoxStream<'static, Result<Bytes>>,
}

impl std::fmt::Debug for FileStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileStream").field("size", &self.size).finish_non_exhaustive()
    }
}

impl FileStream {
    fn new(answer: Answer, idle: Duration) -> Self {
        let size = answer.response.content_length();
        Self { size, chunks: answer.chunks(idle) }
    }

    /// Size of the file, where the daemon told it.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// The bytes as a reader.
    pub fn into_async_read(self) -> impl AsyncRead + Send + Unpin {
        StreamReader::new(self.map_err(std::io::Error::other))
    }
}

impl Stream for FileStream {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.chunks.poll_next_unpin(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_become_headers() {
        assert_eq!(http_range(&(0..10)).as_deref(), Some("bytes=0-9"));
        assert_eq!(http_range(&(5..=5)).as_deref(), Some("bytes=5-5"));
        assert_eq!(http_range(&(7..)).as_deref(), Some("bytes=7-"));
        assert_eq!(http_range(&(..)).as_deref(), Some("bytes=0-"));
        assert_eq!(http_range(&(3..3)), None);
        assert_eq!(http_range(&(0..0)), None);
    }
}
