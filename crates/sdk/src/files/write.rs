//! Writing: bytes, several files at once, streams of any size.

use api_types::execd::{Permission, UploadMetadata};
use bytes::Bytes;
use reqwest::{
    Body, Method, header,
    multipart::{Form, Part},
};
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use super::Files;
use crate::{
    Error, Result,
    transport::{Call, Retry},
};

const OPERATION: &str = "write file";
/// Bytes read from a local source at once.
const CHUNK: usize = 64 << 10;

/// A file to be written. Its directory is made; a file that is there is replaced.
///
/// ```
/// use opensandbox::WriteFile;
/// let script = WriteFile::new("/usr/local/bin/hi", "#!/bin/sh\necho hi\n").mode(0o755).owner("root");
/// # let _ = script;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteFile {
    path: String,
    content: Bytes,
    permission: Permission,
}

impl WriteFile {
    /// Writes `content` to `path`.
    pub fn new(path: impl Into<String>, content: impl Into<Bytes>) -> Self {
        Self { path: path.into(), content: content.into(), permission: Permission::default() }
    }

    /// Sets the mode, e.g. `0o644`.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.permission.mode = Some(wire_mode(mode));
        self
    }

    /// Sets the owner, by name or number.
    #[must_use]
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.permission.owner = Some(owner.into());
        self
    }

    /// Sets the group, by name or number.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.permission.group = Some(group.into());
        self
    }
}

/// The permission bits as the wire has them: their octal digits read as a decimal number.
pub(crate) fn wire_mode(mode: u32) -> u32 {
    (0..4).map(|digit| ((mode >> (3 * digit)) & 7) * 10_u32.pow(digit)).sum()
}

impl Files {
    /// Writes a file.
    pub async fn write(&self, path: impl Into<String>, content: impl Into<Bytes>) -> Result<()> {
        self.write_many([WriteFile::new(path, content)]).await
    }

    /// Writes several files in one request. When one fails, those before it may have been written.
    ///
    /// ```no_run
    /// # async fn f(files: opensandbox::Files) -> opensandbox::Result<()> {
    /// use opensandbox::WriteFile;
    /// files.write_many([WriteFile::new("/a", "1"), WriteFile::new("/b", vec![0xff]).mode(0o600)]).await?;
    /// # Ok(()) }
    /// ```
    pub async fn write_many(&self, files: impl IntoIterator<Item = WriteFile>) -> Result<()> {
        let files: Vec<_> = files.into_iter().collect();
        if files.is_empty() {
            return Ok(());
        }
        let metadata =
            files.iter().map(|file| metadata_text(&file.path, &file.permission)).collect::<Result<Vec<_>>>()?;
        // The same bytes written again are the same file.
        let call = Call { streaming: true, ..self.execd.call(OPERATION, Retry::Idempotent) };
        let size = files.iter().map(|file| file.content.len() as u64).sum();
        let call = Call { timeout: call.timeout + transfer_time(size), ..call };
        self.execd
            .send(call, Method::POST, "/files/upload", |request| {
                let form = files.iter().zip(&metadata).fold(Form::new(), |form, (file, metadata)| {
                    let length = file.content.len() as u64;
                    let content = Part::stream_with_length(Body::from(file.content.clone()), length);
                    add_file(form, metadata.clone(), content)
                });
                request.multipart(form)
            })
            .await
            .map(drop)
    }

    /// Writes a file of any size from a reader, without keeping it in memory. `size` lets the
    /// transfer be checked; without it, it is sent in chunks.
    ///
    /// It is not tried again, for a reader can be read once only. When it fails, the file may have
    /// been written in part.
    ///
    /// ```no_run
    /// # async fn f(files: opensandbox::Files) -> anyhow::Result<()> {
    /// let local = tokio::fs::File::open("large.bin").await?;
    /// let size = local.metadata().await?.len();
    /// files.upload("/data/large.bin", local, Some(size)).await?;
    /// # Ok(()) }
    /// ```
    pub async fn upload(
        &self,
        path: impl Into<String>,
        reader: impl AsyncRead + Send + 'static,
        size: Option<u64>,
    ) -> Result<()> {
        self.upload_as(WriteFile::new(path, Bytes::new()), reader, size).await
    }

    /// As [`Self::upload`], with the mode and owners of `file`, whose content is not looked at.
    pub async fn upload_as(
        &self,
        file: WriteFile,
        reader: impl AsyncRead + Send + 'static,
        size: Option<u64>,
    ) -> Result<()> {
        let metadata = metadata_text(&file.path, &file.permission)?;
        let body = Body::wrap_stream(ReaderStream::with_capacity(reader, CHUNK));
        let content = match size {
            Some(size) => Part::stream_with_length(body, size),
            None => Part::stream(body),
        };
        let form = std::sync::Mutex::new(Some(add_file(Form::new(), metadata, content)));
        let call = Call { streaming: true, ..self.execd.call(OPERATION, Retry::Never) };
        let call = Call { timeout: call.timeout + transfer_time(size.unwrap_or(UNKNOWN_SIZE)), ..call };
        // The address must be known to be good before the only copy of the body is sent there.
        self.execd.ping(self.execd.call(OPERATION, Retry::Idempotent).timeout).await?;
        self.execd
            .send(call, Method::POST, "/files/upload", |request| {
                let form = form.lock().ok().and_then(|mut form| form.take()).unwrap_or_default();
                request.multipart(form)
            })
            .await
            .map(drop)
    }
}

/// Size assumed for the deadline of a stream that does not tell its own.
const UNKNOWN_SIZE: u64 = 16 << 30;

/// How long a transfer of `size` bytes may take beyond a request without one: at least 1 MiB/s.
fn transfer_time(size: u64) -> std::time::Duration {
    std::time::Duration::from_secs(size >> 20)
}

fn metadata_text(path: &str, permission: &Permission) -> Result<String> {
    let metadata = UploadMetadata { path: path.to_owned(), permission: permission.clone() };
    serde_json::to_string(&metadata).map_err(|e| Error::invalid(format!("{OPERATION}: {e}")))
}

/// Published daemons take a metadata part only with a file name.
fn add_file(form: Form, metadata: String, content: Part) -> Form {
    let mut headers = header::HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    let metadata = Part::text(metadata).file_name("metadata").headers(headers);
    form.part("metadata", metadata).part("file", content.file_name("file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_digits() {
        assert_eq!(wire_mode(0o755), 755);
        assert_eq!(wire_mode(0o4644), 4644);
        assert_eq!(metadata_text("/a", &Permission::default()).unwrap(), r#"{"path":"/a"}"#);
    }
}
