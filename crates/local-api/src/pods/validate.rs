//! What a user gets wrong in a pod, in Kubernetes' words.

use serde_json::Value;

use super::quantity;
use crate::error::Cause;
use crate::object;
use crate::verbs::{Target, names};

/// Everything wrong with a pod. `old` is the stored one, for an update.
pub(crate) fn check(target: &Target, old: Option<&Value>, pod: &Value) -> Vec<Cause> {
    if target.is_status() {
        return Vec::new();
    }
    if let Some(old) = old {
        return if target.subresource.is_none() { immutable(old, pod) } else { Vec::new() };
    }
    let mut causes = Vec::new();
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let list = |field: &str| spec.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();

    let mut volumes: Vec<&str> = Vec::new();
    for (index, volume) in list("volumes").iter().enumerate() {
        let path = format!("spec.volumes[{index}]");
        let name = text(volume, "name");
        name_rules(name, &format!("{path}.name"), &volumes, &mut causes);
        volumes.push(name);
        let sources: Vec<&String> =
            volume.as_object().into_iter().flatten().map(|(k, _)| k).filter(|k| *k != "name").collect();
        if sources.len() > 1 {
            causes.push(Cause::forbidden(format!("{path}.{}", sources[1]), "may not specify more than 1 volume type"));
        }
        for (source, field) in [
            ("hostPath", "path"),
            ("configMap", "name"),
            ("secret", "secretName"),
            ("persistentVolumeClaim", "claimName"),
        ] {
            if let Some(given) = volume.get(source)
                && text(given, field).is_empty()
            {
                causes.push(Cause::required(format!("{path}.{source}.{field}"), ""));
            }
        }
    }
    if list("containers").is_empty() {
        causes.push(Cause::required("spec.containers", ""));
    }
    let mut seen: Vec<&str> = Vec::new();
    for field in ["initContainers", "containers"] {
        for (index, container) in list(field).iter().enumerate() {
            let path = format!("spec.{field}[{index}]");
            let name = text(container, "name");
            name_rules(name, &format!("{path}.name"), &seen, &mut causes);
            seen.push(name);
            container_rules(container, &path, &volumes, &mut causes);
        }
    }
    one_of(spec, "restartPolicy", "spec", &["Always", "OnFailure", "Never"], &mut causes);
    one_of(spec, "dnsPolicy", "spec", &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"], &mut causes);
    for field in ["terminationGracePeriodSeconds", "activeDeadlineSeconds"] {
        if let Some(seconds) = spec.get(field).and_then(Value::as_i64)
            && (seconds < 0 || field == "activeDeadlineSeconds" && seconds == 0)
        {
            causes.push(Cause::invalid(format!("spec.{field}"), &seconds.into(), "must be greater than or equal to 0"));
        }
    }
    let hostname = text(spec, "hostname");
    if !hostname.is_empty() && !names::is_label(hostname) {
        causes.push(Cause::invalid("spec.hostname", &hostname.into(), names::LABEL_RULE));
    }
    causes.extend(names::check_labels(spec.get("nodeSelector"), "spec.nodeSelector"));
    causes
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn name_rules(name: &str, path: &str, seen: &[&str], causes: &mut Vec<Cause>) {
    if name.is_empty() {
        causes.push(Cause::required(path, ""));
    } else if !names::is_label(name) {
        causes.push(Cause::invalid(path, &name.into(), names::LABEL_RULE));
    } else if seen.contains(&name) {
        causes.push(Cause::duplicate(path, &name.into()));
    }
}

fn one_of(value: &Value, field: &str, path: &str, allowed: &[&str], causes: &mut Vec<Cause>) {
    if let Some(given) = value.get(field)
        && !allowed.iter().any(|a| given == a)
    {
        let list: Vec<String> = allowed.iter().map(|a| (*a).to_owned()).collect();
        causes.push(Cause::unsupported(format!("{path}.{field}"), given, &list));
    }
}

fn container_rules(container: &Value, path: &str, volumes: &[&str], causes: &mut Vec<Cause>) {
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
        } else if name.contains('=') || !name.bytes().all(|b| (0x20..0x7f).contains(&b)) {
            let rule =
                "a valid environment variable name must consist only of printable ASCII characters other than '='";
            causes.push(Cause::invalid(format!("{path}.name"), &name.into(), rule));
        }
        if !text(variable, "value").is_empty() && variable.get("valueFrom").is_some() {
            let detail = "may not be specified when `value` is not empty";
            causes.push(Cause::invalid(format!("{path}.valueFrom"), &"".into(), detail));
        }
    }
    for (index, mount) in list("volumeMounts").iter().enumerate() {
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
            causes.push(Cause::invalid(format!("{path}.subPath"), &sub.into(), "must be a relative path"));
        } else if sub.split('/').any(|part| part == "..") {
            causes.push(Cause::invalid(format!("{path}.subPath"), &sub.into(), "must not contain '..'"));
        }
    }
    resource_rules(container, &format!("{path}.resources"), causes);
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
            if !standard && !name.contains('/') {
                causes.push(Cause::invalid(
                    here,
                    &name.as_str().into(),
                    "must be a standard resource type or fully qualified",
                ));
            } else if list == "requests"
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

fn probe_rules(probe: &Value, path: &str, which: &str, causes: &mut Vec<Cause>) {
    let handlers = ["exec", "httpGet", "tcpSocket", "grpc"].into_iter().filter(|h| probe.get(*h).is_some()).count();
    if handlers == 0 {
        causes.push(Cause::required(path, "must specify a handler type"));
    } else if handlers > 1 {
        causes.push(Cause::forbidden(path, "may not specify more than 1 handler type"));
    }
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

/// Kubernetes lets an update change very little of a pod's spec.
fn immutable(old: &Value, new: &Value) -> Vec<Cause> {
    let strip = |pod: &Value| {
        let mut spec = pod.get("spec").cloned().unwrap_or_default();
        for list in ["containers", "initContainers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                if let Value::Object(map) = container {
                    map.shift_remove("image");
                }
            }
        }
        if let Value::Object(map) = &mut spec {
            for field in
                ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "ephemeralContainers"]
            {
                map.shift_remove(field);
            }
        }
        spec
    };
    let mut causes = Vec::new();
    let count = |pod: &Value, list: &str| object::at(pod, list).and_then(Value::as_array).map_or(0, Vec::len);
    for list in ["spec.containers", "spec.initContainers"] {
        if count(old, list) != count(new, list) {
            causes.push(Cause::forbidden(list, "pod updates may not add or remove containers"));
        }
    }
    if causes.is_empty() && strip(old) != strip(new) {
        causes.push(Cause::forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        ));
    }
    causes
}
