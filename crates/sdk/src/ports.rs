//! Which ports are listened to in a sandbox, as a list and as it changes.

use std::net::IpAddr;

use futures::stream::BoxStream;
use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::{Result, Sandbox, body, transport::Retry};

/// A TCP port that a program in the sandbox listens to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Port {
    /// Its number.
    pub port: u16,
    /// Addresses it is listened to at.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// The process that listens, where it can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
}

/// A change of the ports that are listened to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum PortEvent {
    /// A program has begun to listen; of the first events, it did already.
    Opened {
        /// Number.
        port: u16,
        /// Addresses it is listened to at.
        #[serde(default)]
        addresses: Vec<IpAddr>,
    },
    /// Nobody listens any more.
    Closed {
        /// Number.
        port: u16,
    },
}

impl Sandbox {
    /// The ports that are listened to, but for the daemon's own.
    ///
    /// ```no_run
    /// # async fn f(sandbox: opensandbox::Sandbox) -> opensandbox::Result<()> {
    /// for port in sandbox.ports().await? {
    ///     println!("{} {}", port.port, port.process.unwrap_or_default());
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn ports(&self) -> Result<Vec<Port>> {
        let call = self.execd().call("list ports", Retry::Idempotent);
        body::json(self.execd().send(call, Method::GET, "/ports", |r| r).await?).await
    }

    /// The ports that are listened to, then each change as it happens.
    ///
    /// ```no_run
    /// # async fn f(sandbox: opensandbox::Sandbox) -> opensandbox::Result<()> {
    /// use futures::TryStreamExt;
    /// use opensandbox::PortEvent;
    ///
    /// let mut events = sandbox.watch_ports().await?;
    /// while let Some(event) = events.try_next().await? {
    ///     if let PortEvent::Opened { port, .. } = event {
    ///         println!("{port} is open");
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn watch_ports(&self) -> Result<BoxStream<'static, Result<PortEvent>>> {
        let call = self.execd().streaming("watch ports", Retry::Idempotent);
        let answer = self.execd().send(call, Method::GET, "/ports/watch", |r| r).await?;
        Ok(body::json_stream(answer, self.execd().stream_idle_timeout()))
    }

    /// Waits until a program in the sandbox listens to a port. Bound it with a timeout of your own.
    ///
    /// ```no_run
    /// # async fn f(sandbox: opensandbox::Sandbox) -> anyhow::Result<()> {
    /// let wait = sandbox.port_opened(8000);
    /// tokio::time::timeout(std::time::Duration::from_secs(30), wait).await??;
    /// # Ok(()) }
    /// ```
    pub async fn port_opened(&self, wanted: u16) -> Result<()> {
        use futures::TryStreamExt;
        let mut events = self.watch_ports().await?;
        while let Some(event) = events.try_next().await? {
            if matches!(event, PortEvent::Opened { port, .. } if port == wanted) {
                return Ok(());
            }
        }
        Err(crate::Error::protocol("watch ports", "the stream ended"))
    }
}
