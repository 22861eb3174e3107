//! `GET /sandboxes/{id}/diagnostics/{logs,events}`: what the pod says, and what is said of it.

use api_types::ErrorCode;
use api_types::crd::{BatchSandbox, Daemons};
use axum::extract::RawQuery;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::LogParams;
use kube::{Api, ResourceExt as _};
use schemars::JsonSchema;
use serde::Serialize;

use super::facts;
use super::find::find;
use super::state::claimed;
use crate::app::App;
use crate::error::{ApiError, from_kube, within};
use crate::front::path::Path;
use crate::front::query::Query;

/// Type of the content.
const PLAIN: &str = "text/plain; charset=utf-8";

/// Scopes of logs.
pub const LOG_SCOPES: [&str; 2] = ["container", "all"];
/// Scopes of events.
pub const EVENT_SCOPES: [&str; 2] = ["runtime", "all"];

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
pub async fn logs(app: App, Path(id): Path<String>, RawQuery(query): RawQuery) -> Result<Response, ApiError> {
    let query = Query::parse(query.as_deref())?;
    let scope = scope(&query, &LOG_SCOPES)?;
    let tail = query.number("tail", 1..=10_000, 100)?;
    let since = query.get("since").map(since).transpose()?;
    let object = find(&app, &id).await?;
    let text = tail_of(&app, &object, query.get("container"), tail, since).await?;
    let truncated = text.lines().count() >= tail as usize;
    Ok(answer(id, "logs", scope, text, truncated))
}

/// Seconds of an age such as `10m`.
fn since(text: &str) -> Result<i64, ApiError> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = match unit {
        "s" | "" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => 0,
    };
    let seconds = number.parse::<i64>().ok().and_then(|n| n.checked_mul(unit)).filter(|n| *n > 0);
    seconds
        .ok_or_else(|| ApiError::field("since", format_args!("is {text:?}; it is an age such as 90s, 10m, 2h or 1d")))
}

async fn tail_of(
    app: &App,
    object: &BatchSandbox,
    container: Option<&str>,
    tail: u32,
    since: Option<i64>,
) -> Result<String, ApiError> {
    let name = pod_of(object)?;
    let pods: Api<Pod> = Api::namespaced(app.client.clone(), &app.space().namespace);
    let doing = format!("reading the logs of sandbox {}", object.name_any());
    let deadline = app.config.limits.kube_timeout;
    let container = match container {
        Some(container) => Some(container.to_owned()),
        None => {
            let pod = within(deadline, &doing, pods.get_opt(&name)).await?.map_err(|e| from_kube(&e, &doing))?;
            let spec = pod.ok_or_else(|| pod_is_gone(object))?.spec.unwrap_or_default();
            Daemons::of(&spec).execd.or_else(|| spec.containers.first().map(|c| c.name.clone()))
        }
    };
    let params = LogParams {
        container,
        tail_lines: Some(tail.into()),
        since_seconds: since,
        timestamps: true,
        ..LogParams::default()
    };
    within(deadline, &doing, pods.logs(&name, &params)).await?.map_err(|error| match &error {
        kube::Error::Api(status) if status.code == 404 => pod_is_gone(object),
        _ => from_kube(&error, &doing),
    })
}

/// The pod, as plain text.
pub async fn inspect(app: App, Path(id): Path<String>) -> Result<Response, ApiError> {
    let object = find(&app, &id).await?;
    Ok(plain(inspected(&app, &object).await?))
}

async fn inspected(app: &App, object: &BatchSandbox) -> Result<String, ApiError> {
    let facts = facts::gather(app, object).await?;
    let pod = facts.pod.ok_or_else(|| no_pod(object))?;
    let state = pod.status.clone().unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    let mut lines = vec![
        format!("Pod: {}", pod.name_any()),
        format!("Namespace: {}", pod.namespace().unwrap_or_default()),
        format!("Node: {}", spec.node_name.as_deref().unwrap_or("-")),
        format!("Phase: {}", state.phase.as_deref().unwrap_or("-")),
        format!("IP: {}", state.pod_ip.as_deref().unwrap_or("-")),
    ];
    lines.extend(state.start_time.iter().map(|t| format!("Started: {}", t.0)));
    lines.extend(spec.runtime_class_name.iter().map(|class| format!("RuntimeClass: {class}")));
    let containers = state.init_container_statuses.iter().flatten().chain(state.container_statuses.iter().flatten());
    for container in containers {
        let now = container.state.clone().unwrap_or_default();
        let how = match (now.running, now.waiting, now.terminated) {
            (Some(_), ..) => "running".to_owned(),
            (_, Some(waiting), _) => format!("waiting: {}", waiting.reason.unwrap_or_default()),
            (_, _, Some(ended)) => {
                format!("ended: {} (exit code {})", ended.reason.unwrap_or_default(), ended.exit_code)
            }
            _ => "unknown".to_owned(),
        };
        lines.push(format!(
            "Container {}: {how}, image {}, restarts {}",
            container.name, container.image, container.restart_count
        ));
    }
    for condition in state.conditions.iter().flatten() {
        lines.push(format!("Condition {}: {}", condition.type_, condition.status));
    }
    Ok(lines.join("\n") + "\n")
}

/// Pod, events and last log lines. What can't be had is said in its place.
pub async fn summary(app: App, Path(id): Path<String>, RawQuery(query): RawQuery) -> Result<Response, ApiError> {
    let query = Query::parse(query.as_deref())?;
    let tail = query.number("tail", 1..=10_000, 50)?;
    let limit = query.number("event_limit", 1..=500, 20)? as usize;
    let object = find(&app, &id).await?;
    let (pod, events, logs) =
        tokio::join!(inspected(&app, &object), events_of(&app, &object), tail_of(&app, &object, None, tail, None));
    let events = events.map(|events| shown(&events, limit));
    let rule = "=".repeat(72);
    let mut text = format!("{rule}\nSANDBOX DIAGNOSTICS SUMMARY\nSandbox ID: {id}\n{rule}\n");
    for (title, block) in [("INSPECT", pod), ("EVENTS", events), ("LOGS", logs)] {
        let block = block.unwrap_or_else(|error| format!("[{}]\n", error.message));
        text.push_str(&format!("\n{title}\n{}\n{block}", "-".repeat(40)));
    }
    Ok(plain(text))
}

/// Kubernetes events about the sandbox and its pod, oldest first.
pub async fn events(app: App, Path(id): Path<String>, RawQuery(query): RawQuery) -> Result<Response, ApiError> {
    let query = Query::parse(query.as_deref())?;
    let scope = scope(&query, &EVENT_SCOPES)?;
    let limit = query.number("limit", 1..=500, 50)? as usize;
    let object = find(&app, &id).await?;
    let found = events_of(&app, &object).await?;
    Ok(answer(id, "events", scope, shown(&found, limit), found.len() > limit))
}

/// Events of sandbox and pod, oldest first.
async fn events_of(app: &App, object: &BatchSandbox) -> Result<Vec<Event>, ApiError> {
    let mut found = facts::events(app, "BatchSandbox", &object.name_any()).await?;
    if let Ok(pod) = pod_of(object) {
        found.extend(facts::events(app, "Pod", &pod).await?);
    }
    found.sort_by_key(facts::time);
    Ok(found)
}

/// The last events, one a line.
fn shown(events: &[Event], limit: usize) -> String {
    let last = events.iter().skip(events.len().saturating_sub(limit));
    let lines = last.map(|e| {
        format!(
            "{} {} {} {}/{}: {}\n",
            facts::time(e).map(|t| t.to_string()).unwrap_or_default(),
            e.type_.as_deref().unwrap_or_default(),
            e.reason.as_deref().unwrap_or_default(),
            e.involved_object.kind.as_deref().unwrap_or_default(),
            e.involved_object.name.as_deref().unwrap_or_default(),
            e.message.as_deref().unwrap_or_default()
        )
    });
    lines.collect()
}

fn scope(query: &Query, known: &[&str]) -> Result<Option<String>, ApiError> {
    match query.get("scope") {
        Some(scope) if !known.contains(&scope) => {
            let message = format!("scope: is {scope:?}; it is one of {}", known.join(", "));
            Err(ApiError::new(ErrorCode::DiagnosticsScopeUnsupported, message))
        }
        scope => Ok(scope.map(str::to_owned)),
    }
}

/// The pod by its grant: pods of a pool carry no id of a sandbox.
fn pod_of(object: &BatchSandbox) -> Result<String, ApiError> {
    let latest = || object.status.as_ref()?.grants.iter().max_by_key(|g| g.epoch);
    let grant = claimed(object).or_else(latest);
    grant.map(|g| g.pod.clone()).ok_or_else(|| no_pod(object))
}

fn no_pod(object: &BatchSandbox) -> ApiError {
    ApiError::new(ErrorCode::PodIpNotAvailable, format!("sandbox {} has no pod yet", object.name_any()))
}

fn pod_is_gone(object: &BatchSandbox) -> ApiError {
    ApiError::new(ErrorCode::PodIpNotAvailable, format!("the pod of sandbox {} is gone", object.name_any()))
}

fn plain(content: String) -> Response {
    let mut response = content.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PLAIN));
    response
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
