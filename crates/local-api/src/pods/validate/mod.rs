//! What a user gets wrong in a pod, in Kubernetes' words.

mod container;
mod security;
mod spec;

use serde_json::Value;

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
        spec::host_path(volume, &path, &mut causes);
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
    let host_network = spec.get("hostNetwork").and_then(Value::as_bool).unwrap_or(false);
    for field in ["initContainers", "containers"] {
        for (index, container) in list(field).iter().enumerate() {
            let path = format!("spec.{field}[{index}]");
            let name = text(container, "name");
            name_rules(name, &format!("{path}.name"), &seen, &mut causes);
            seen.push(name);
            container::rules(container, &path, &volumes, &mut causes);
            container::init_rules(container, field, &path, &mut causes);
            if host_network {
                container::host_ports(container, &path, &mut causes);
            }
        }
    }
    one_of(spec, "restartPolicy", "spec", &["Always", "OnFailure", "Never"], &mut causes);
    one_of(spec, "dnsPolicy", "spec", &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"], &mut causes);
    if let Some(seconds) = spec.get("activeDeadlineSeconds").and_then(Value::as_i64)
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        let rule = format!("must be between 1 and {}, inclusive", i32::MAX);
        causes.push(Cause::invalid("spec.activeDeadlineSeconds", &seconds.into(), rule));
    }
    causes.extend(names::check_labels(spec.get("nodeSelector"), "spec.nodeSelector"));
    spec::rules(spec, &mut causes);
    security::pod_rules(spec, &mut causes);
    causes
}

pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn name_rules(name: &str, path: &str, seen: &[&str], causes: &mut Vec<Cause>) {
    if name.is_empty() {
        causes.push(Cause::required(path, ""));
    } else if !names::is_label(name) {
        causes.push(Cause::invalid(path, &name.into(), names::LABEL_RULE));
    } else if seen.contains(&name) {
        causes.push(Cause::duplicate(path, &name.into()));
    }
}

pub(super) fn one_of(value: &Value, field: &str, path: &str, allowed: &[&str], causes: &mut Vec<Cause>) {
    if let Some(given) = value.get(field)
        && !allowed.iter().any(|a| given == a)
    {
        let list: Vec<String> = allowed.iter().map(|a| (*a).to_owned()).collect();
        causes.push(Cause::unsupported(format!("{path}.{field}"), given, &list));
    }
}

/// Kubernetes lets an update change very little of a pod's spec.
fn immutable(old: &Value, new: &Value) -> Vec<Cause> {
    // Scheduling gates may be taken away, one by one, and never added.
    let gates =
        |pod: &Value| object::at(pod, "spec.schedulingGates").and_then(Value::as_array).cloned().unwrap_or_default();
    let known = gates(old);
    let only_fewer = gates(new).iter().all(|gate| known.contains(gate));
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
            if only_fewer {
                map.shift_remove("schedulingGates");
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
