//! `pods/log`, `pods/exec`, `pods/attach`, `pods/portforward`: what is checked before the node is asked.

mod channels;
mod forward;
mod spdy;
mod tunnel;
mod wire;

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use serde_json::Value;

use super::body::{self, ApiBody};
use super::query::Query;
use crate::core::Core;
use crate::error::{ApiError, Cause, Result};
use crate::object;
use crate::pods;
use crate::streams::{ExecOptions, LogOptions, PodRef, PodStreams, StreamError};
use crate::verbs::{Target, get};

/// Subprotocols of exec and attach, the best first.
const EXEC_PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
/// A SPDY session through a WebSocket, and ports on channels.
const FORWARD_PROTOCOLS: [&str; 2] = ["SPDY/3.1+portforward.k8s.io", "v4.channel.k8s.io"];
/// What a SPDY session without a WebSocket names.
const FORWARD_SESSION: &str = "portforward.k8s.io";

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
    if !asked.is_empty() {
        if pods::container_names(pod).any(|c| c == asked) {
            return Ok(asked.to_owned());
        }
        return Err(ApiError::bad_request(format!("container {asked} is not valid for pod {name}")));
    }
    let only = object::at(pod, "spec.containers").and_then(Value::as_array).filter(|l| l.len() == 1);
    let named = pods::annotated_container(pod).or_else(|| only?.first()?.get("name")?.as_str());
    let all: Vec<&str> = ["spec.initContainers", "spec.containers"]
        .into_iter()
        .filter_map(|path| object::at(pod, path)?.as_array())
        .flatten()
        .filter_map(|c| c.get("name")?.as_str())
        .collect();
    named.map(Into::into).ok_or_else(|| {
        let list = all.join(" ");
        ApiError::bad_request(format!("a container name must be specified for pod {name}, choose one of: [{list}]"))
    })
}

/// A pod that no node runs (yet) has no streams.
fn placed(pod: &Value) -> Result<()> {
    if object::str_at(pod, "spec.nodeName").is_empty() {
        let name = object::name(pod);
        return Err(ApiError::bad_request(format!("pod {name} does not have a host assigned")));
    }
    Ok(())
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

/// What is wrong with the options of a log.
fn check_log(name: &str, query: &Query) -> Result<()> {
    let mut causes = Vec::new();
    for (field, least) in [("sinceSeconds", 1), ("tailLines", 0), ("limitBytes", 1)] {
        if let Some(number) = query.number::<i64>(field)?.filter(|n| *n < least) {
            let rule = if least == 0 { "must be greater than or equal to 0" } else { "must be greater than 0" };
            causes.push(Cause::invalid(field, &number.into(), rule));
        }
    }
    if !query.get("sinceSeconds").is_empty() && !query.get("sinceTime").is_empty() {
        causes.push(Cause::forbidden("[]", "at most one of `sinceTime` or `sinceSeconds` may be specified"));
    }
    if causes.is_empty() { Ok(()) } else { Err(ApiError::invalid("", "PodLogOptions", name, causes)) }
}

/// `GET pods/{name}/log`
pub(crate) async fn log(core: &Arc<Core>, target: &Target, query: &Query) -> Result<Response<ApiBody>> {
    let (reference, stored) = pod(core, target)?;
    let asked = container(&stored.value, query.get("container"))?;
    let since = query.get("sinceTime");
    let since_time = match since {
        "" => None,
        text => {
            let time: jiff::Timestamp =
                text.parse().map_err(|_| ApiError::bad_request(format!("invalid sinceTime: {text:?}")))?;
            Some(u64::try_from(core.clock.now().duration_since(time).as_secs()).unwrap_or(0).max(1))
        }
    };
    check_log(&target.name, query)?;
    if object::str_at(&stored.value, "spec.nodeName").is_empty() {
        let mut nothing = Response::new(body::whole(""));
        *nothing.status_mut() = StatusCode::NO_CONTENT;
        return Ok(nothing);
    }
    let options = LogOptions {
        container: asked,
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
    if sub == "portforward" {
        placed(&stored.value)?;
        let node = node(core)?;
        if let Some(answer) = spdy_handshake(parts) {
            tokio::spawn(tunnel::over_connection(upgrade.ok_or_else(no_upgrade)?, node, reference));
            return Ok(answer);
        }
        let (answer, protocol) = handshake(parts, &FORWARD_PROTOCOLS)?;
        let upgrade = upgrade.ok_or_else(no_upgrade)?;
        if protocol == FORWARD_PROTOCOLS[0] {
            tokio::spawn(tunnel::through_websocket(upgrade, node, reference));
            return Ok(answer);
        }
        let ports = query
            .all("ports")
            .flat_map(|p| p.split(','))
            .map(|p| p.parse().map_err(|_| ApiError::bad_request(format!("invalid port {p:?}"))))
            .collect::<Result<Vec<u16>>>()?;
        if ports.is_empty() || ports.len() > forward::MAX_PORTS {
            return Err(ApiError::bad_request("between one and 64 ports must be given"));
        }
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
    placed(&stored.value)?;
    let node = node(core)?;
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

/// Agrees on a SPDY session for port forwarding, where that is asked for without a WebSocket.
fn spdy_handshake(parts: &http::request::Parts) -> Option<Response<ApiBody>> {
    const VERSION: header::HeaderName = header::HeaderName::from_static("x-stream-protocol-version");
    let upgrade = parts.headers.get(header::UPGRADE)?.to_str().ok()?;
    let mut offered = parts.headers.get_all(&VERSION).iter().filter_map(|v| v.to_str().ok());
    if !upgrade.eq_ignore_ascii_case("SPDY/3.1") || !offered.any(|v| v == FORWARD_SESSION) {
        return None;
    }
    let mut answer = Response::new(body::whole(""));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    headers.insert(VERSION, HeaderValue::from_static(FORWARD_SESSION));
    Some(answer)
}

/// Agrees on a WebSocket and one of the protocols.
fn handshake(parts: &http::request::Parts, protocols: &[&'static str]) -> Result<(Response<ApiBody>, &'static str)> {
    let header = |name: header::HeaderName| parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !header(header::UPGRADE).eq_ignore_ascii_case("websocket") {
        return Err(ApiError::bad_request(
            "Upgrade request required: the embedded cluster runs commands over WebSocket, not SPDY",
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
