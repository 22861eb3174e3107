//! `POST /v1/metrics/events`: what the published SDKs report after a create.

use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::app::App;
use crate::error::ApiError;
use crate::front::body::Json;

/// One report.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricsEvent {
    /// `sandbox.create`.
    #[schemars(extend("const" = "sandbox.create"))]
    pub event_type: String,
    /// The sandbox, when there is one.
    #[serde(default)]
    pub sandbox_id: Option<String>,
    /// Image that was asked for.
    #[serde(default)]
    pub image: Option<String>,
    /// How long the caller waited.
    pub create_duration_ms: u64,
    /// Whether it got its sandbox.
    pub success: bool,
}

/// Takes a report into the log.
pub async fn handle(_: App, Json { value: event, .. }: Json<MetricsEvent>) -> Result<StatusCode, ApiError> {
    if event.event_type != "sandbox.create" {
        return Err(ApiError::field("eventType", format_args!("is {:?}; it is sandbox.create", event.event_type)));
    }
    tracing::debug!(
        sandbox = event.sandbox_id,
        image = event.image,
        milliseconds = event.create_duration_ms,
        success = event.success,
        "a client reports a create"
    );
    Ok(StatusCode::NO_CONTENT)
}
