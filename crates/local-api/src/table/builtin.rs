//! The tables of the built-in kinds.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{age, column, name_column, since};
use crate::kinds::{Builtin, Column};
use crate::object;

/// Name, type, format, priority and description of a column after the name.
type Spec = (&'static str, &'static str, &'static str, i64, &'static str);

const AGE: Spec = ("Age", "string", "", 0, "Time since the object was created.");

const POD: &[Spec] = &[
    ("Ready", "string", "", 0, "The aggregate readiness state of this pod for accepting traffic."),
    ("Status", "string", "", 0, "The aggregate status of the containers in this pod."),
    ("Restarts", "string", "", 0, "How often the containers were restarted, and when last."),
    AGE,
    ("IP", "string", "", 1, "Address of the pod."),
    ("Node", "string", "", 1, "Node that runs the pod."),
    ("Nominated Node", "string", "", 1, "Node that may run the pod after preemption."),
    ("Readiness Gates", "string", "", 1, "Conditions that readiness waits for."),
];
const NAMESPACE: &[Spec] = &[("Status", "string", "", 0, "The status of the namespace"), AGE];
const CONFIGMAP: &[Spec] = &[("Data", "string", "", 0, "Number of entries."), AGE];
const SECRET: &[Spec] =
    &[("Type", "string", "", 0, "Kind of the secret's data."), ("Data", "string", "", 0, "Number of entries."), AGE];
const SERVICEACCOUNT: &[Spec] = &[AGE];
const NODE: &[Spec] = &[
    ("Status", "string", "", 0, "The status of the node"),
    ("Roles", "string", "", 0, "The roles of the node"),
    AGE,
    ("Version", "string", "", 0, "Version of the node's agent."),
    ("Internal-IP", "string", "", 1, "Address of the node."),
    ("External-IP", "string", "", 1, "Address of the node from outside."),
    ("OS-Image", "string", "", 1, "Operating system."),
    ("Kernel-Version", "string", "", 1, "Kernel."),
    ("Container-Runtime", "string", "", 1, "Container runtime."),
];
const SERVICE: &[Spec] = &[
    ("Type", "string", "", 0, "Kind of the service."),
    ("Cluster-IP", "string", "", 0, "Address of the service."),
    ("External-IP", "string", "", 0, "Address from outside."),
    ("Port(s)", "string", "", 0, "Ports of the service."),
    AGE,
    ("Selector", "string", "", 1, "Pods behind the service."),
];
const LEASE: &[Spec] = &[("Holder", "string", "", 0, "Who holds the lease."), AGE];
const DEFINITION: &[Spec] = &[("Created At", "date", "", 0, "When the definition was made.")];
const EVENT: &[Spec] = &[
    ("Last Seen", "string", "", 0, "Time since the event was last seen."),
    ("Type", "string", "", 0, "Normal or Warning."),
    ("Reason", "string", "", 0, "Why, in one word."),
    ("Object", "string", "", 0, "What the event is about."),
    ("Subobject", "string", "", 1, "Part of the object."),
    ("Source", "string", "", 1, "Who reports."),
    ("Message", "string", "", 0, "Why, in words."),
    ("First Seen", "string", "", 1, "Time since the event was first seen."),
    ("Count", "integer", "", 1, "How often it was seen."),
    ("Name", "string", "name", 1, "Name of the event."),
];

pub(super) fn columns(kind: Builtin) -> Vec<Column> {
    let specs = match kind {
        Builtin::Pod => POD,
        Builtin::Namespace => NAMESPACE,
        Builtin::ConfigMap => CONFIGMAP,
        Builtin::Secret => SECRET,
        Builtin::ServiceAccount => SERVICEACCOUNT,
        Builtin::Node => NODE,
        Builtin::Service => SERVICE,
        Builtin::Lease => LEASE,
        Builtin::Definition => DEFINITION,
        Builtin::Event => EVENT,
    };
    let made = specs.iter().map(|(name, kind, format, priority, what)| column(name, kind, format, *priority, what));
    // Events show their names last, and only when asked for more.
    let name = (kind != Builtin::Event).then(name_column);
    name.into_iter().chain(made).collect()
}

pub(super) fn cells(kind: Builtin, value: &Value, now: Timestamp) -> Vec<Value> {
    let text = |path: &str| object::str_at(value, path).to_owned();
    let or_none = |text: String| if text.is_empty() { "<none>".to_owned() } else { text };
    let count = |path: &str| {
        object::at(value, path)
            .map_or(0, |v| v.as_object().map_or_else(|| v.as_array().map_or(0, Vec::len), serde_json::Map::len))
    };
    let name = object::name(value);
    let age = age(value, now);
    match kind {
        Builtin::Pod => {
            let (ready, status, restarts) = pod_state(value, now);
            let gates = count("spec.readinessGates");
            vec![
                json!(name),
                json!(ready),
                json!(status),
                json!(restarts),
                json!(age),
                json!(or_none(text("status.podIP"))),
                json!(or_none(text("spec.nodeName"))),
                json!(or_none(text("status.nominatedNodeName"))),
                json!(if gates == 0 { "<none>".to_owned() } else { format!("0/{gates}") }),
            ]
        }
        Builtin::Namespace => vec![json!(name), json!(text("status.phase")), json!(age)],
        Builtin::ConfigMap => vec![json!(name), json!(count("data") + count("binaryData")), json!(age)],
        Builtin::Secret => vec![json!(name), json!(text("type")), json!(count("data")), json!(age)],
        Builtin::ServiceAccount => vec![json!(name), json!(age)],
        Builtin::Node => node_cells(value, name, age),
        Builtin::Service => service_cells(value, name, age),
        Builtin::Lease => vec![json!(name), json!(text("spec.holderIdentity")), json!(age)],
        Builtin::Definition => vec![json!(name), json!(text("metadata.creationTimestamp"))],
        Builtin::Event => event_cells(value, name, now),
    }
}

fn conditions<'a>(value: &'a Value, kind: &'a str) -> Option<&'a Value> {
    object::at(value, "status.conditions")?.as_array()?.iter().find(|c| c.get("type").is_some_and(|t| t == kind))
}

fn node_cells(value: &Value, name: &str, age: String) -> Vec<Value> {
    let ready = conditions(value, "Ready").and_then(|c| c.get("status")?.as_str());
    let mut status = match ready {
        Some("True") => "Ready".to_owned(),
        Some("False") => "NotReady".to_owned(),
        _ => "Unknown".to_owned(),
    };
    if object::at(value, "spec.unschedulable").and_then(Value::as_bool) == Some(true) {
        status.push_str(",SchedulingDisabled");
    }
    let labels = object::meta(value).get("labels").and_then(Value::as_object);
    let mut roles: Vec<&str> =
        labels.into_iter().flatten().filter_map(|(k, _)| k.strip_prefix("node-role.kubernetes.io/")).collect();
    roles.sort_unstable();
    let address = |kind: &str| {
        object::at(value, "status.addresses")
            .and_then(Value::as_array)
            .and_then(|l| l.iter().find(|a| a.get("type").is_some_and(|t| t == kind))?.get("address")?.as_str())
            .unwrap_or("<none>")
            .to_owned()
    };
    let info = |field: &str| {
        let text = object::str_at(value, &format!("status.nodeInfo.{field}")).to_owned();
        if text.is_empty() { "<unknown>".into() } else { text }
    };
    vec![
        json!(name),
        json!(status),
        json!(if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") }),
        json!(age),
        json!(object::str_at(value, "status.nodeInfo.kubeletVersion")),
        json!(address("InternalIP")),
        json!(address("ExternalIP")),
        json!(info("osImage")),
        json!(info("kernelVersion")),
        json!(info("containerRuntimeVersion")),
    ]
}

fn service_cells(value: &Value, name: &str, age: String) -> Vec<Value> {
    let text = |path: &str| object::str_at(value, path).to_owned();
    let or_none = |text: String| if text.is_empty() { "<none>".to_owned() } else { text };
    let ports: Vec<String> = object::at(value, "spec.ports")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|p| {
            let port = p.get("port").map(Value::to_string).unwrap_or_default();
            format!("{port}/{}", p.get("protocol").and_then(Value::as_str).unwrap_or("TCP"))
        })
        .collect();
    let selector: Vec<String> = object::at(value, "spec.selector")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    vec![
        json!(name),
        json!(text("spec.type")),
        json!(or_none(text("spec.clusterIP"))),
        json!("<none>"),
        json!(or_none(ports.join(","))),
        json!(age),
        json!(or_none(selector.join(","))),
    ]
}

fn event_cells(value: &Value, name: &str, now: Timestamp) -> Vec<Value> {
    let text = |path: &str| object::str_at(value, path).to_owned();
    let first_of = |paths: &[&str]| paths.iter().map(|p| text(p)).find(|t| !t.is_empty()).unwrap_or_default();
    let last = first_of(&["series.lastObservedTime", "lastTimestamp", "eventTime", "metadata.creationTimestamp"]);
    let first = first_of(&["firstTimestamp", "eventTime", "metadata.creationTimestamp"]);
    let count = object::at(value, "series.count").or(object::at(value, "count")).and_then(Value::as_i64).unwrap_or(1);
    let object = format!("{}/{}", text("involvedObject.kind").to_lowercase(), text("involvedObject.name"));
    let source = first_of(&["source.component", "reportingComponent"]);
    let host = text("source.host");
    vec![
        json!(since(&last, now)),
        json!(text("type")),
        json!(text("reason")),
        json!(object),
        json!(text("involvedObject.fieldPath")),
        json!(if host.is_empty() { source } else { format!("{source}, {host}") }),
        json!(text("message").trim()),
        json!(since(&first, now)),
        json!(count),
        json!(name),
    ]
}

/// Ready, status and restarts of a pod, as kubectl shows them.
fn pod_state(pod: &Value, now: Timestamp) -> (String, String, String) {
    let list = |path: &str| object::at(pod, path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let total = list("spec.containers").len();
    let phase = object::str_at(pod, "status.phase");
    let reason = object::str_at(pod, "status.reason");
    let mut status = if reason.is_empty() { phase.to_owned() } else { reason.to_owned() };
    let (mut ready, mut restarts, mut last_restart) = (0, 0_i64, String::new());
    let mut note_restart = |container: &Value| {
        restarts += container.get("restartCount").and_then(Value::as_i64).unwrap_or(0);
        let finished = object::str_at(container, "lastState.terminated.finishedAt");
        if finished > last_restart.as_str() {
            last_restart = finished.to_owned();
        }
    };
    let mut initializing = false;
    let inits = list("status.initContainerStatuses");
    for (index, container) in inits.iter().enumerate() {
        note_restart(container);
        let state = container.get("state").unwrap_or(&Value::Null);
        if let Some(done) = object::at(state, "terminated") {
            let code = done.get("exitCode").and_then(Value::as_i64).unwrap_or(0);
            if code == 0 {
                continue;
            }
            status = format!("Init:{}", ended(done));
        } else if object::at(state, "running").is_some()
            && container.get("started").and_then(Value::as_bool) == Some(true)
            && is_sidecar(pod, container)
        {
            continue;
        } else {
            let waiting = object::str_at(state, "waiting.reason");
            status = if waiting.is_empty() || waiting == "PodInitializing" {
                format!("Init:{index}/{}", list("spec.initContainers").len())
            } else {
                format!("Init:{waiting}")
            };
        }
        initializing = true;
        break;
    }
    if !initializing {
        let mut running = false;
        for container in list("status.containerStatuses").iter().rev() {
            note_restart(container);
            let state = container.get("state").unwrap_or(&Value::Null);
            let waiting = object::str_at(state, "waiting.reason");
            if !waiting.is_empty() {
                status = waiting.to_owned();
            } else if let Some(done) = object::at(state, "terminated") {
                status = ended(done);
            } else if object::at(state, "running").is_some()
                && container.get("ready").and_then(Value::as_bool) == Some(true)
            {
                running = true;
                ready += 1;
            }
        }
        if status == "Completed" && running {
            let is_ready = conditions(pod, "Ready").and_then(|c| c.get("status")?.as_str()) == Some("True");
            status = if is_ready { "Running".into() } else { "NotReady".into() };
        }
    }
    if object::is_terminating(pod) {
        status = if reason == "NodeLost" {
            "Unknown".into()
        } else if phase != "Failed" && phase != "Succeeded" {
            "Terminating".into()
        } else {
            status
        };
    }
    let restarts = if restarts > 0 && !last_restart.is_empty() {
        format!("{restarts} ({} ago)", since(&last_restart, now))
    } else {
        restarts.to_string()
    };
    (format!("{ready}/{total}"), status, restarts)
}

fn is_sidecar(pod: &Value, status: &Value) -> bool {
    let specs = object::at(pod, "spec.initContainers").and_then(Value::as_array);
    specs
        .into_iter()
        .flatten()
        .any(|c| c.get("name") == status.get("name") && c.get("restartPolicy").is_some_and(|p| p == "Always"))
}

/// How a container ended, in one word.
fn ended(terminated: &Value) -> String {
    let reason = terminated.get("reason").and_then(Value::as_str).unwrap_or_default();
    if !reason.is_empty() {
        return reason.to_owned();
    }
    match terminated.get("signal").and_then(Value::as_i64).filter(|s| *s != 0) {
        Some(signal) => format!("Signal:{signal}"),
        None => format!("ExitCode:{}", terminated.get("exitCode").and_then(Value::as_i64).unwrap_or(0)),
    }
}
