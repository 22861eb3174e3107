//! `pods/log`, `pods/exec`, `pods/attach`, `pods/portforward`: what is checked before the node is asked.

mod channels;
mod forward;

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use serde_json::Value;

use super::body::{self, ApiBody};
use super::query::Query;
use crate::core::Core;
use crate::error::{ApiError, Result};
use crate::object;
use crate::pods;
use crate::streams::{ExecOptions, LogOptions, PodRef, PodStreams, StreamError};
use crate::verbs::{Target, get};

/// Subprotocols of exec and attach, the best first.
const EXEC_PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
const FORWARD_PROTOCOLS: [&str; 1] = ["v4.channel.k8s.io"];

fn node(core: &Core) -> Result<Arc<dyn PodStreams>> {
    core.streams.read().clone().ok_or_else(|| ApiError::not_implemented("a node"))
}

fn pod(core: &Core, target: &Target) -> Result<(PodRef, Arc<crate::store::Stored>)> {
    let pod = Target::new(target.resource.clone(), &target.namespace, &target.name);
    let stored = get::get(core, &pod)?;
    let reference = PodRef {
        namespace: target.namespace.clone(),
        name: target.name.clone(),
        uid: object::uid(&stored.value).to_owned(),
    };
    Ok((reference, stored))
}

/// The container that is meant, in kube-apiserver's words when it is not clear.
fn container(pod: &Value, asked: &str) -> Result<String> {
    let name = object::name(pod);
    let listed = |paths: &[&str]| -> Vec<&str> {
        paths
            .iter()
            .filter_map(|p| object::at(pod, p)?.as_array())
            .flatten()
            .filter_map(|c| c.get("name")?.as_str())
            .collect()
    };
    if !asked.is_empty() {
        if pods::container_names(pod).any(|c| c == asked) {
            return Ok(asked.to_owned());
        }
        return Err(ApiError::bad_request(format!("container {asked} is not valid for pod {name}")));
    }
    let main = listed(&["spec.containers"]);
    let annotated = pods::default_container(pod);
    match (main.as_slice(), annotated) {
        ([only], _) => Ok((*only).to_owned()),
        (_, Some(container)) => Ok(container.to_owned()),
        (many, None) => {
            let inits = listed(&["spec.initContainers"]);
            let mut message =
                format!("a container name must be specified for pod {name}, choose one of: [{}]", many.join(" "));
            if !inits.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", inits.join(" ")));
            }
            Err(ApiError::bad_request(message))
        }
    }
}

fn refused(error: StreamError) -> ApiError {
    match error {
        StreamError::NoSuchPod(_) => ApiError::new(404, "NotFound", error.to_string()),
        StreamError::NoSuchContainer { .. } => ApiError::bad_request(error.to_string()),
        StreamError::NotRunning { pod, container, state } => {
            ApiError::bad_request(format!("container {container:?} in pod {pod:?} is {state}"))
        }
        StreamError::CannotRun { .. } | StreamError::Io(_) => {
            ApiError::internal(format!("Internal error occurred: {error}"))
        }
    }
}

/// `GET pods/{name}/log`
pub(crate) async fn log(core: &Arc<Core>, target: &Target, query: &Query) -> Result<Response<ApiBody>> {
    let (reference, stored) = pod(core, target)?;
    let since = query.get("sinceTime");
    let since_time = match since {
        "" => None,
        text => {
            let time: jiff::Timestamp =
                text.parse().map_err(|_| ApiError::bad_request(format!("invalid sinceTime: {text:?}")))?;
            Some(u64::try_from(core.clock.now().duration_since(time).as_secs()).unwrap_or(0).max(1))
        }
    };
    let options = LogOptions {
        container: container(&stored.value, query.get("container"))?,
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        timestamps: query.flag("timestamps"),
        tail_lines: query.number("tailLines")?,
        since_seconds: query.number("sinceSeconds")?.or(since_time),
        limit_bytes: query.number("limitBytes")?,
    };
    let bytes = node(core)?.logs(&reference, options).await.map_err(refused)?;
    let mut response = Response::new(body::streaming(bytes));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// `exec`, `attach` and `portforward`: answers 101 and goes on by itself.
pub(crate) async fn open(
    core: &Arc<Core>,
    target: &Target,
    sub: &str,
    parts: &http::request::Parts,
    query: &Query,
    upgrade: Option<OnUpgrade>,
) -> Result<Response<ApiBody>> {
    let (reference, stored) = pod(core, target)?;
    let node = node(core)?;
    if sub == "portforward" {
        let (answer, protocol) = handshake(parts, &FORWARD_PROTOCOLS)?;
        let upgrade = upgrade.ok_or_else(no_upgrade)?;
        let ports = query
            .all("ports")
            .flat_map(|p| p.split(','))
            .map(|p| p.parse().map_err(|_| ApiError::bad_request(format!("invalid port {p:?}"))))
            .collect::<Result<Vec<u16>>>()?;
        if ports.is_empty() || ports.len() > forward::MAX_PORTS {
            return Err(ApiError::bad_request("between one and 64 ports must be given"));
        }
        let _ = protocol;
        tokio::spawn(forward::run(upgrade, node, reference, ports));
        return Ok(answer);
    }
    let options = ExecOptions {
        container: container(&stored.value, query.get("container"))?,
        command: if sub == "exec" { query.all("command").map(Into::into).collect() } else { Vec::new() },
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr") && !query.flag("tty"),
        tty: query.flag("tty"),
    };
    if sub == "exec" && options.command.is_empty() {
        return Err(ApiError::bad_request("you must specify at least one command for the container"));
    }
    if !(options.stdin || options.stdout || options.stderr) {
        return Err(ApiError::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    let (answer, protocol) = handshake(parts, &EXEC_PROTOCOLS)?;
    let upgrade = upgrade.ok_or_else(no_upgrade)?;
    tokio::spawn(channels::run(upgrade, node, reference, options, protocol == EXEC_PROTOCOLS[0]));
    Ok(answer)
}

fn no_upgrade() -> ApiError {
    ApiError::new(501, "NotImplemented", "this connection cannot be upgraded; use the cluster's HTTPS address")
}

/// Agrees on a WebSocket and one of the protocols.
fn handshake(parts: &http::request::Parts, protocols: &[&'static str]) -> Result<(Response<ApiBody>, &'static str)> {
    let header = |name: header::HeaderName| parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !header(header::UPGRADE).eq_ignore_ascii_case("websocket") {
        return Err(ApiError::bad_request(
            "Upgrade request required: the embedded cluster streams over WebSocket only, not SPDY",
        ));
    }
    let key = header(header::SEC_WEBSOCKET_KEY);
    if key.is_empty() || header(header::SEC_WEBSOCKET_VERSION) != "13" {
        return Err(ApiError::bad_request("a WebSocket of version 13 is required"));
    }
    let offered: Vec<&str> = parts
        .headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(str::trim)
        .collect();
    let Some(protocol) = protocols.iter().find(|p| offered.contains(p)) else {
        return Err(ApiError::bad_request(format!(
            "none of the offered subprotocols {offered:?} is served; served are {protocols:?}"
        )));
    };
    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
    let mut answer = Response::new(body::whole(""));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    let accept = HeaderValue::from_str(&accept).map_err(|e| ApiError::internal(e.to_string()))?;
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok((answer, protocol))
}
