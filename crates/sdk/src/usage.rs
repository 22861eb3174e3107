//! What a sandbox uses, at once and as it changes.

use api_types::execd::Metrics;
use futures::stream::BoxStream;
use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::{Result, Sandbox, body, transport::Retry};

/// What a sandbox uses. What the daemon or the kernel does not tell is absent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Usage {
    /// Processor and memory.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// Most memory that was ever in use, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem_peak_mib: Option<f64>,
    /// Processes killed for want of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
    /// Seconds for which the processor was withheld.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_throttled_seconds: Option<f64>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
    /// How many there may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<u64>,
    /// Size of the root file system in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_total_mib: Option<f64>,
    /// How much of it is in use, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_used_mib: Option<f64>,
}

impl Sandbox {
    /// Processor and memory in use.
    pub async fn metrics(&self) -> Result<Metrics> {
        self.usage().await.map(|usage| usage.metrics)
    }

    /// Everything that is told of what it uses.
    pub async fn usage(&self) -> Result<Usage> {
        let call = self.execd().call("get metrics", Retry::Idempotent);
        body::json(self.execd().send(call, Method::GET, "/metrics", |r| r).await?).await
    }

    /// What it uses, each second.
    ///
    /// ```no_run
    /// # async fn f(sandbox: opensandbox::Sandbox) -> opensandbox::Result<()> {
    /// use futures::TryStreamExt;
    /// let mut seconds = sandbox.watch_usage().await?;
    /// while let Some(usage) = seconds.try_next().await? {
    ///     println!("{:.0} % {:.0} MiB", usage.metrics.cpu_used_pct, usage.metrics.mem_used_mib);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn watch_usage(&self) -> Result<BoxStream<'static, Result<Usage>>> {
        let call = self.execd().streaming("watch metrics", Retry::Idempotent);
        let answer = self.execd().send(call, Method::GET, "/metrics/watch", |r| r).await?;
        Ok(body::json_stream(answer, self.execd().stream_idle_timeout()))
    }
}
