//! What the sandbox container wrote, and what Kubernetes recorded.

use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::{Client, Result, client::segment, transport::Retry};

/// A diagnosis, as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Diagnosis {
    /// The sandbox.
    pub sandbox_id: String,
    /// `logs` or `events`.
    pub kind: String,
    /// What was asked for.
    pub scope: String,
    /// The text.
    #[serde(default)]
    pub content: String,
    /// Whether there is more.
    pub truncated: bool,
}

impl Client {
    /// The last lines that the sandbox container wrote. `scope` is `container` or `all`.
    pub async fn diagnostic_logs(&self, id: &str, scope: &str) -> Result<Diagnosis> {
        self.diagnosis("read logs", id, "logs", scope).await
    }

    /// What Kubernetes recorded of the sandbox and its pod. `scope` is `runtime` or `all`.
    pub async fn diagnostic_events(&self, id: &str, scope: &str) -> Result<Diagnosis> {
        self.diagnosis("read events", id, "events", scope).await
    }

    async fn diagnosis(&self, operation: &'static str, id: &str, kind: &str, scope: &str) -> Result<Diagnosis> {
        let call = self.call(operation, Retry::Idempotent);
        let path = format!("/sandboxes/{}/diagnostics/{kind}", segment(id));
        self.json(call, Method::GET, &path, |r| r.query(&[("scope", scope)])).await
    }
}
