//! `GET /sandboxes/{id}/diagnostics/{logs,events}`: what the pod says, and what is said of it.

use api_types::ErrorCode;
use api_types::crd::{BatchSandbox, Daemons};
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{ListParams, LogParams};
use kube::{Api, ResourceExt as _};
use schemars::JsonSchema;
use serde::Serialize;

use super::find::find;
use super::state::claimed;
use crate::app::App;
use crate::error::{ApiError, from_kube, within};
use crate::front::query::Query;

/// Type of the content.
const PLAIN: &str = "text/plain; charset=utf-8";

/// A diagnosis.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Diagnosis {
    /// The sandbox.
    pub sandbox_id: String,
    /// `logs` or `events`.
    pub kind: String,
    /// What was asked for.
    pub scope: String,
    /// Always `inline`.
    pub delivery: String,
    /// Type of the content.
    pub content_type: String,
    /// The content.
    pub content: String,
    /// Its bytes.
    pub content_length: usize,
    /// Whether there is more.
    pub truncated: bool,
}

/// The last lines of the sandbox container.
pub async fn logs(
    State(app): State<App>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let query = Query::parse(query.as_deref())?;
    let scope = scope(&query, &["container", "all"])?;
    let tail = query.number("tail", 1..=10_000, 100)?;
    let object = find(&app, &id).await?;
    let name = pod_of(&object)?;
    let pods: Api<Pod> = Api::namespaced(app.client.clone(), &app.config.namespace);
    let doing = format!("reading the logs of sandbox {id}");
    let deadline = app.config.limits.kube_timeout;
    let container = match query.get("container") {
        Some(container) => Some(container.to_owned()),
        None => {
            let pod = within(deadline, &doing, pods.get(&name)).await?.map_err(|e| from_kube(&e, &doing))?;
            let spec = pod.spec.unwrap_or_default();
            Daemons::of(&spec).execd.or_else(|| spec.containers.first().map(|c| c.name.clone()))
        }
    };
    let params = LogParams { container, tail_lines: Some(tail.into()), timestamps: true, ..LogParams::default() };
    let text = within(deadline, &doing, pods.logs(&name, &params)).await?.map_err(|e| from_kube(&e, &doing))?;
    let truncated = text.lines().count() >= tail as usize;
    Ok(answer(id, "logs", scope, text, truncated))
}

/// Kubernetes events about the sandbox and its pod, oldest first.
pub async fn events(
    State(app): State<App>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let query = Query::parse(query.as_deref())?;
    let scope = scope(&query, &["runtime", "all"])?;
    let limit = query.number("limit", 1..=500, 50)? as usize;
    let object = find(&app, &id).await?;
    let api: Api<Event> = Api::namespaced(app.client.clone(), &app.config.namespace);
    let doing = format!("reading the events of sandbox {id}");
    let mut found = Vec::new();
    for name in std::iter::once(object.name_any()).chain(pod_of(&object)) {
        let params = ListParams::default().fields(&format!("involvedObject.name={name}"));
        let listed = within(app.config.limits.kube_timeout, &doing, api.list(&params)).await?;
        found.extend(listed.map_err(|e| from_kube(&e, &doing))?.items);
    }
    let time = |e: &Event| e.last_timestamp.as_ref().map(|t| t.0).or(e.event_time.as_ref().map(|t| t.0));
    found.sort_by_key(time);
    let truncated = found.len() > limit;
    let lines = found.iter().skip(found.len().saturating_sub(limit)).map(|e| {
        format!(
            "{} {} {} {}/{}: {}\n",
            time(e).map(|t| t.to_string()).unwrap_or_default(),
            e.type_.as_deref().unwrap_or_default(),
            e.reason.as_deref().unwrap_or_default(),
            e.involved_object.kind.as_deref().unwrap_or_default(),
            e.involved_object.name.as_deref().unwrap_or_default(),
            e.message.as_deref().unwrap_or_default()
        )
    });
    Ok(answer(id, "events", scope, lines.collect(), truncated))
}

fn scope(query: &Query, known: &[&str]) -> Result<Option<String>, ApiError> {
    match query.get("scope") {
        Some(scope) if !known.contains(&scope) => {
            Err(ApiError::field("scope", format_args!("is {scope:?}; it is one of {}", known.join(", "))))
        }
        scope => Ok(scope.map(str::to_owned)),
    }
}

/// The pod by its grant: pods of a pool carry no id of a sandbox.
fn pod_of(object: &BatchSandbox) -> Result<String, ApiError> {
    let latest = || object.status.as_ref()?.grants.iter().max_by_key(|g| g.epoch);
    let grant = claimed(object).or_else(latest);
    grant.map(|g| g.pod.clone()).ok_or_else(|| {
        ApiError::new(ErrorCode::PodIpNotAvailable, format!("sandbox {} has no pod yet", object.name_any()))
    })
}

/// JSON when a scope was given, and the older plain text otherwise.
fn answer(sandbox_id: String, kind: &str, scope: Option<String>, content: String, truncated: bool) -> Response {
    let Some(scope) = scope else {
        let content = if content.is_empty() { format!("(no {kind})") } else { content };
        let mut response = content.into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PLAIN));
        response.headers_mut().insert("deprecation", HeaderValue::from_static("true"));
        return response;
    };
    axum::Json(Diagnosis {
        sandbox_id,
        kind: kind.to_owned(),
        scope,
        delivery: "inline".to_owned(),
        content_type: PLAIN.to_owned(),
        content_length: content.len(),
        content,
        truncated,
    })
    .into_response()
}
