//! Changes of files as they happen.

use futures::stream::BoxStream;
use reqwest::Method;
use serde::Deserialize;

use super::Files;
use crate::{Result, body, transport::Retry};

/// A change below a path that is watched.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum FileChange {
    /// The first event: what changes from now on is told.
    Watching {
        /// The path.
        path: String,
    },
    /// Something is there that was not.
    Created {
        /// Where.
        path: String,
    },
    /// Content or properties have changed.
    Modified {
        /// Of what.
        path: String,
    },
    /// Something is not there any more.
    Removed {
        /// Where it was.
        path: String,
    },
    /// Something has moved.
    Moved {
        /// Where it was.
        from: String,
        /// Where it is.
        path: String,
    },
    /// More changed than could be told: look again.
    Overflow,
}

impl Files {
    /// What changes at a path, and, if asked for, in everything below it.
    ///
    /// ```no_run
    /// # async fn f(files: opensandbox::Files) -> opensandbox::Result<()> {
    /// use futures::TryStreamExt;
    /// let mut changes = files.watch("/src", true).await?;
    /// while let Some(change) = changes.try_next().await? {
    ///     println!("{change:?}");
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn watch(&self, path: &str, recursive: bool) -> Result<BoxStream<'static, Result<FileChange>>> {
        let call = self.execd.streaming("watch files", Retry::Idempotent);
        let query = [("path", path), ("recursive", if recursive { "true" } else { "false" })];
        let answer = self.execd.send(call, Method::GET, "/files/watch", |r| r.query(&query)).await?;
        Ok(body::json_stream(answer, self.execd.stream_idle_timeout()))
    }
}
