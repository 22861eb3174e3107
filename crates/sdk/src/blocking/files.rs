//! Files, each call to its end.

use std::{collections::BTreeMap, path::Path};

use api_types::execd::FileInfo;
use bytes::Bytes;

use super::Waiter;
use crate::{Progress, Result, WriteFile};

/// The files of one sandbox, see [`crate::Files`].
#[derive(Debug, Clone)]
pub struct Files {
    pub(super) inner: crate::Files,
    pub(super) waiter: Waiter,
}

impl Files {
    /// The bytes of a file of at most 256 MiB.
    pub fn read(&self, path: &str) -> Result<Bytes> {
        self.waiter.wait(self.inner.read(path))
    }

    /// The text of a file of at most 256 MiB.
    pub fn read_text(&self, path: &str) -> Result<String> {
        self.waiter.wait(self.inner.read_text(path))
    }

    /// Writes a file.
    pub fn write(&self, path: impl Into<String>, content: impl Into<Bytes>) -> Result<()> {
        self.waiter.wait(self.inner.write(path, content))
    }

    /// Writes several files in one request.
    pub fn write_many(&self, files: impl IntoIterator<Item = WriteFile>) -> Result<()> {
        self.waiter.wait(self.inner.write_many(files))
    }

    /// What is known of some files.
    pub fn info<'a>(&self, paths: impl IntoIterator<Item = &'a str>) -> Result<BTreeMap<String, FileInfo>> {
        self.waiter.wait(self.inner.info(paths))
    }

    /// The entries of a directory.
    pub fn list(&self, path: &str) -> Result<Vec<FileInfo>> {
        self.waiter.wait(self.inner.list(path))
    }

    /// Makes a directory and those above it.
    pub fn mkdir(&self, path: &str) -> Result<()> {
        self.waiter.wait(self.inner.mkdir(path))
    }

    /// Removes files.
    pub fn remove<'a>(&self, paths: impl IntoIterator<Item = &'a str>) -> Result<()> {
        self.waiter.wait(self.inner.remove(paths))
    }

    /// Copies a directory into the sandbox with all that is in it.
    pub fn upload_dir(
        &self,
        local_dir: impl AsRef<Path>,
        remote: &str,
        progress: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Result<u64> {
        self.waiter.wait(self.inner.upload_dir(local_dir, remote, progress))
    }

    /// Copies a directory out of the sandbox with all that is in it.
    pub fn download_dir(
        &self,
        remote: &str,
        local_dir: impl AsRef<Path>,
        progress: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Result<u64> {
        self.waiter.wait(self.inner.download_dir(remote, local_dir, progress))
    }
}
