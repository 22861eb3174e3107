//! Names, directories, permissions and contents in place.

use std::collections::BTreeMap;

use api_types::execd::{FileInfo, MoveItem, Permission, ReplaceItem, Replaced};
use reqwest::Method;

use super::{Files, write::wire_mode};
use crate::{Error, Result, body, transport::Retry};

impl Files {
    /// What is known of some files, by the paths that were asked for. One that does not exist is an
    /// error.
    pub async fn info<'a>(&self, paths: impl IntoIterator<Item = &'a str>) -> Result<BTreeMap<String, FileInfo>> {
        let call = self.execd.call("get file info", Retry::Idempotent);
        let query = path_query(paths);
        body::json(self.execd.send(call, Method::GET, "/files/info", |r| r.query(&query)).await?).await
    }

    /// The entries of a directory.
    pub async fn list(&self, path: &str) -> Result<Vec<FileInfo>> {
        self.list_depth(path, 1).await
    }

    /// The entries of a directory and of those below it, `depth` levels in all.
    pub async fn list_depth(&self, path: &str, depth: u32) -> Result<Vec<FileInfo>> {
        let call = self.execd.call("list directory", Retry::Idempotent);
        let query = [("path", path.to_owned()), ("depth", depth.to_string())];
        body::json(self.execd.send(call, Method::GET, "/directories/list", |r| r.query(&query)).await?).await
    }

    /// The files below a directory whose base name matches a glob pattern.
    ///
    /// ```no_run
    /// # async fn f(files: opensandbox::Files) -> opensandbox::Result<()> {
    /// for file in files.search("/src", "*.{rs,toml}").await? {
    ///     println!("{} {}", file.size, file.path);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn search(&self, path: &str, pattern: &str) -> Result<Vec<FileInfo>> {
        let call = self.execd.call("search files", Retry::Idempotent);
        let query = [("path", path), ("pattern", pattern)];
        body::json(self.execd.send(call, Method::GET, "/files/search", |r| r.query(&query)).await?).await
    }

    /// Makes a directory and those above it; one that exists is left as it is.
    pub async fn mkdir(&self, path: &str) -> Result<()> {
        self.mkdir_with(path, &Permission::default()).await
    }

    /// As [`Self::mkdir`], with mode (octal digits in a decimal number) and owners of the new directory.
    pub async fn mkdir_with(&self, path: &str, permission: &Permission) -> Result<()> {
        let call = self.execd.call("make directory", Retry::Idempotent);
        let body = BTreeMap::from([(path, permission)]);
        self.execd.send(call, Method::POST, "/directories", |r| r.json(&body)).await.map(drop)
    }

    /// Removes files; those that do not exist are passed over.
    ///
    /// ```no_run
    /// # async fn f(files: opensandbox::Files) -> opensandbox::Result<()> {
    /// files.remove(["/tmp/a", "/tmp/b"]).await?;
    /// # Ok(()) }
    /// ```
    pub async fn remove<'a>(&self, paths: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let call = self.execd.call("remove file", Retry::Idempotent);
        let query = path_query(paths);
        self.execd.send(call, Method::DELETE, "/files", |r| r.query(&query)).await.map(drop)
    }

    /// Removes directories and all below them; those that do not exist are passed over.
    pub async fn remove_dirs<'a>(&self, paths: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let call = self.execd.call("remove directory", Retry::Idempotent);
        let query = path_query(paths);
        self.execd.send(call, Method::DELETE, "/directories", |r| r.query(&query)).await.map(drop)
    }

    /// Moves a file or directory to a path where nothing is.
    pub async fn rename(&self, from: &str, to: &str) -> Result<()> {
        let call = self.execd.call("move file", Retry::Unsent);
        let body = [MoveItem { src: from.to_owned(), dest: to.to_owned() }];
        self.execd.send(call, Method::POST, "/files/mv", |r| r.json(&body)).await.map(drop)
    }

    /// Sets the mode of a file or directory, e.g. `0o644`.
    pub async fn chmod(&self, path: &str, mode: u32) -> Result<()> {
        self.set_permission(path, &Permission { mode: Some(wire_mode(mode)), ..Permission::default() }).await
    }

    /// Sets mode (octal digits in a decimal number) and owners of a file or directory.
    pub async fn set_permission(&self, path: &str, permission: &Permission) -> Result<()> {
        let call = self.execd.call("set permission", Retry::Idempotent);
        let body = BTreeMap::from([(path, permission)]);
        self.execd.send(call, Method::POST, "/files/permissions", |r| r.json(&body)).await.map(drop)
    }

    /// Replaces every occurrence of a text in a file. Gives how many there were.
    pub async fn replace(&self, path: &str, old: &str, new: &str) -> Result<u64> {
        const OPERATION: &str = "replace in file";
        if old.is_empty() {
            return Err(Error::invalid("replace in file: the text to find is empty"));
        }
        let call = self.execd.call(OPERATION, Retry::Unsent);
        let body = BTreeMap::from([(path, ReplaceItem { old: old.to_owned(), new: new.to_owned() })]);
        let answer = self.execd.send(call, Method::POST, "/files/replace?verbose=true", |r| r.json(&body)).await?;
        let counts: BTreeMap<String, Replaced> = body::json(answer).await?;
        counts
            .into_values()
            .next()
            .map(|count| count.replaced_count)
            .ok_or_else(|| Error::protocol(OPERATION, "the answer names no file"))
    }
}

fn path_query<'a>(paths: impl IntoIterator<Item = &'a str>) -> Vec<(&'static str, &'a str)> {
    paths.into_iter().map(|path| ("path", path)).collect()
}
