//! What a user gets wrong in a container.

use serde_json::Value;

use super::{one_of, text};
use crate::error::Cause;
use crate::object;
use crate::pods::quantity;
use crate::verbs::names;

/// Everything wrong with one container; `volumes` are the names it may mount.
pub(super) fn rules(container: &Value, path: &str, volumes: &[&str], causes: &mut Vec<Cause>) {
    let list = |field: &str| container.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let image = text(container, "image");
    if image.is_empty() {
        causes.push(Cause::required(format!("{path}.image"), ""));
    } else if image.trim() != image {
        causes.push(Cause::invalid(
            format!("{path}.image"),
            &image.into(),
            "must not have leading or trailing whitespace",
        ));
    }
    one_of(container, "imagePullPolicy", path, &["Always", "IfNotPresent", "Never"], causes);
    one_of(container, "terminationMessagePolicy", path, &["FallbackToLogsOnError", "File"], causes);
    let (mut names_seen, mut paths): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for (index, port) in list("ports").iter().enumerate() {
        let path = format!("{path}.ports[{index}]");
        let name = text(port, "name");
        if !name.is_empty() {
            port_name(name, &format!("{path}.name"), causes);
            if names_seen.contains(&name) {
                causes.push(Cause::duplicate(format!("{path}.name"), &name.into()));
            }
            names_seen.push(name);
        }
        match port.get("containerPort").and_then(Value::as_i64) {
            None | Some(0) => causes.push(Cause::required(format!("{path}.containerPort"), "")),
            Some(number) if !(1..=65_535).contains(&number) => {
                causes.push(port_range(&format!("{path}.containerPort"), number));
            }
            Some(_) => {}
        }
        if let Some(number) = port.get("hostPort").and_then(Value::as_i64).filter(|n| !(0..=65_535).contains(n)) {
            causes.push(port_range(&format!("{path}.hostPort"), number));
        }
        one_of(port, "protocol", &path, &["SCTP", "TCP", "UDP"], causes);
    }
    for (index, variable) in list("env").iter().enumerate() {
        let path = format!("{path}.env[{index}]");
        let name = text(variable, "name");
        if name.is_empty() {
            causes.push(Cause::required(format!("{path}.name"), ""));
        } else if !is_variable(name) {
            causes.push(Cause::invalid(format!("{path}.name"), &name.into(), VARIABLE_RULE));
        }
        if let Some(from) = variable.get("valueFrom") {
            source_rules(from, !text(variable, "value").is_empty(), &format!("{path}.valueFrom"), causes);
        }
    }
    env_from_rules(list("envFrom"), path, causes);
    for (index, mount) in list("volumeMounts").iter().enumerate() {
        // Kubernetes leaves the index out of the paths of some faults.
        let whole = format!("{path}.volumeMounts");
        let path = format!("{path}.volumeMounts[{index}]");
        let name = text(mount, "name");
        if name.is_empty() {
            causes.push(Cause::required(format!("{path}.name"), ""));
        } else if !volumes.contains(&name) {
            causes.push(Cause::not_found(format!("{path}.name"), &name.into()));
        }
        let at = text(mount, "mountPath");
        if at.is_empty() {
            causes.push(Cause::required(format!("{path}.mountPath"), ""));
        } else if paths.contains(&at) {
            causes.push(Cause::invalid(format!("{path}.mountPath"), &at.into(), "must be unique"));
        }
        paths.push(at);
        let sub = text(mount, "subPath");
        if sub.starts_with('/') {
            causes.push(Cause::invalid(format!("{whole}.subPath"), &sub.into(), "must be a relative path"));
        } else if sub.split('/').any(|part| part == "..") {
            causes.push(Cause::invalid(format!("{whole}.subPath"), &sub.into(), "must not contain '..'"));
        }
        one_of(mount, "mountPropagation", &whole, &["Bidirectional", "HostToContainer", "None"], causes);
    }
    resource_rules(container, &format!("{path}.resources"), causes);
    lifecycle_rules(container, &format!("{path}.lifecycle"), causes);
    super::security::container_rules(container, &format!("{path}.securityContext"), causes);
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(given) = container.get(probe) {
            probe_rules(given, &format!("{path}.{probe}"), probe, causes);
        }
    }
}

fn port_range(path: &str, number: i64) -> Cause {
    Cause::invalid(path, &number.into(), "must be between 1 and 65535, inclusive")
}

fn port_name(name: &str, path: &str, causes: &mut Vec<Cause>) {
    let mut fault = |detail: &str| causes.push(Cause::invalid(path, &name.into(), detail));
    if name.len() > 15 {
        fault("must be no more than 15 characters");
    }
    if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        fault("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    }
    if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        fault("must contain at least one letter (a-z)");
    }
    if name.contains("--") {
        fault("must not contain consecutive hyphens");
    }
    if name.starts_with('-') || name.ends_with('-') {
        fault("must not begin or end with a hyphen");
    }
}

fn resource_rules(container: &Value, path: &str, causes: &mut Vec<Cause>) {
    let resources = container.get("resources").unwrap_or(&Value::Null);
    for list in ["limits", "requests"] {
        for (name, value) in resources.get(list).and_then(Value::as_object).into_iter().flatten() {
            let here = format!("{path}.{list}[{name}]");
            let amount = quantity::parse(value);
            if amount.is_some_and(|a| a < 0.0) {
                causes.push(Cause::invalid(here.clone(), value, "must be greater than or equal to 0"));
            }
            let standard =
                matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
            let named: Value = name.as_str().into();
            if !standard && !name.contains('/') {
                for rule in [
                    "must be a standard resource type or fully qualified",
                    "must be a standard resource for containers",
                ] {
                    causes.push(Cause::invalid(here.clone(), &named, rule));
                }
                continue;
            }
            if name.contains('/') && amount.is_some_and(|a| a.fract() != 0.0) {
                causes.push(Cause::invalid(here, value, "must be an integer"));
            }
            if list == "requests"
                && let Some(limit) = resources.get("limits").and_then(|l| l.get(name))
                && let (Some(request), Some(cap)) = (amount, quantity::parse(limit))
                && request > cap
            {
                let shown = limit.as_str().map_or_else(|| limit.to_string(), Into::into);
                let detail = format!("must be less than or equal to {name} limit of {shown}");
                // Kubernetes names the list, not the entry, for this one.
                causes.push(Cause::invalid(format!("{path}.requests"), value, detail));
            }
        }
    }
}

/// Exactly one of what can be done must be said; what is said must be whole.
fn handler_rules(handler: &Value, kinds: &[&str], path: &str, causes: &mut Vec<Cause>) {
    let mut given = kinds.iter().filter(|k| handler.get(**k).is_some());
    let Some(first) = given.next() else {
        return causes.push(Cause::required(path, "must specify a handler type"));
    };
    for kind in std::iter::once(first) {
        let how = handler.get(*kind).unwrap_or(&Value::Null);
        match *kind {
            "exec" if how.get("command").and_then(Value::as_array).is_none_or(Vec::is_empty) => {
                causes.push(Cause::required(format!("{path}.exec.command"), ""));
            }
            "httpGet" | "tcpSocket" => target_port(how, &format!("{path}.{kind}.port"), causes),
            _ => {}
        }
    }
    for more in given {
        causes.push(Cause::forbidden(format!("{path}.{more}"), "may not specify more than 1 handler type"));
    }
}

fn target_port(how: &Value, path: &str, causes: &mut Vec<Cause>) {
    match how.get("port") {
        Some(Value::String(name)) => port_name(name, path, causes),
        Some(Value::Number(number)) => {
            let number = number.as_i64().unwrap_or(0);
            if !(1..=65_535).contains(&number) {
                causes.push(port_range(path, number));
            }
        }
        _ => causes.push(port_range(path, 0)),
    }
}

fn probe_rules(probe: &Value, path: &str, which: &str, causes: &mut Vec<Cause>) {
    handler_rules(probe, &["exec", "httpGet", "tcpSocket", "grpc"], path, causes);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        if let Some(n) = probe.get(field).and_then(Value::as_i64).filter(|n| *n < 0) {
            causes.push(Cause::invalid(format!("{path}.{field}"), &n.into(), "must be greater than or equal to 0"));
        }
    }
    if which != "readinessProbe"
        && let Some(n) = probe.get("successThreshold").and_then(Value::as_i64).filter(|n| *n != 1)
    {
        causes.push(Cause::invalid(format!("{path}.successThreshold"), &n.into(), "must be 1"));
    }
}

fn lifecycle_rules(container: &Value, path: &str, causes: &mut Vec<Cause>) {
    for hook in ["postStart", "preStop"] {
        if let Some(handler) = container.get("lifecycle").and_then(|l| l.get(hook)) {
            handler_rules(handler, &["exec", "httpGet", "tcpSocket", "sleep"], &format!("{path}.{hook}"), causes);
        }
    }
}

/// What an init container may not have unless it goes on beside the others.
pub(super) fn init_rules(container: &Value, list: &str, path: &str, causes: &mut Vec<Cause>) {
    if list != "initContainers" {
        return;
    }
    if container.get("restartPolicy").is_some_and(|p| p != "Always") {
        one_of(container, "restartPolicy", path, &["Always", "Never", "OnFailure"], causes);
    }
    if container.get("restartPolicy").is_some_and(|p| p == "Always") {
        return;
    }
    for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        if container.get(field).is_some() {
            let why = "may not be set for init containers without restartPolicy=Always";
            causes.push(Cause::forbidden(format!("{path}.{field}"), why));
        }
    }
}

/// In the node's network a port is what it is.
pub(super) fn host_ports(container: &Value, path: &str, causes: &mut Vec<Cause>) {
    let ports = container.get("ports").and_then(Value::as_array);
    for (index, port) in ports.into_iter().flatten().enumerate() {
        if let Some(host) = port.get("hostPort").filter(|h| port.get("containerPort") != Some(h)) {
            let why = "must match `containerPort` when `hostNetwork` is true";
            causes.push(Cause::invalid(format!("{path}.ports[{index}].hostPort"), host, why));
        }
    }
}

/// Fields of a pod that its containers may be told.
const TOLD_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

fn source_rules(from: &Value, has_value: bool, path: &str, causes: &mut Vec<Cause>) {
    const SOURCES: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
    let given: Vec<&str> = SOURCES.into_iter().filter(|s| from.get(s).is_some()).collect();
    if given.is_empty() {
        let why =
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        return causes.push(Cause::invalid(path, &"".into(), why));
    }
    if has_value {
        return causes.push(Cause::invalid(path, &"".into(), "may not be specified when `value` is not empty"));
    }
    if given.len() > 1 {
        return causes.push(Cause::invalid(path, &"".into(), "may not have more than one field specified at a time"));
    }
    match given[0] {
        "fieldRef" => {
            let field = object::str_at(from, "fieldRef.fieldPath");
            let entry = ["metadata.labels['", "metadata.annotations['"].iter().any(|p| field.starts_with(p));
            if field.is_empty() {
                causes.push(Cause::required(format!("{path}.fieldRef.fieldPath"), ""));
            } else if !entry && !TOLD_FIELDS.contains(&field) {
                let why = format!("error converting fieldPath: field label not supported: {field}");
                causes.push(Cause::invalid(format!("{path}.fieldRef.fieldPath"), &field.into(), why));
            }
        }
        reference @ ("configMapKeyRef" | "secretKeyRef") => {
            let name = object::str_at(from, &format!("{reference}.name"));
            if !names::is_subdomain(name) {
                causes.push(Cause::invalid(format!("{path}.{reference}.name"), &name.into(), names::SUBDOMAIN_RULE));
            }
            if object::str_at(from, &format!("{reference}.key")).is_empty() {
                causes.push(Cause::required(format!("{path}.{reference}.key"), ""));
            }
        }
        _ => {}
    }
}

/// What a variable's name is, in Kubernetes' words.
const VARIABLE_RULE: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";

fn is_variable(name: &str) -> bool {
    !name.contains('=') && name.bytes().all(|b| (0x20..0x7f).contains(&b))
}

fn env_from_rules(list: &[Value], path: &str, causes: &mut Vec<Cause>) {
    for (index, from) in list.iter().enumerate() {
        let prefix = text(from, "prefix");
        if !prefix.is_empty() && !is_variable(prefix) {
            causes.push(Cause::invalid(format!("{path}.envFrom[{index}].prefix"), &prefix.into(), VARIABLE_RULE));
        }
        match ["configMapRef", "secretRef"].iter().filter(|s| from.get(**s).is_some()).count() {
            0 => {
                let why = "must specify one of: `configMapRef` or `secretRef`";
                causes.push(Cause::invalid(format!("{path}.envFrom"), &"".into(), why));
            }
            1 => {}
            _ => {
                let why = "may not have more than one field specified at a time";
                causes.push(Cause::invalid(format!("{path}.envFrom"), &"".into(), why));
            }
        }
    }
}
