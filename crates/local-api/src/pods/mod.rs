//! What is particular to pods: defaults, rules, graceful deletion.

mod admission;
mod defaults;
mod quantity;
mod validate;

use serde_json::{Value, json};

use crate::object;

pub(crate) use admission::admit;
pub(crate) use defaults::{defaults, prepare_create};
pub(crate) use validate::check;

/// Seconds between the wish to delete a pod and its end: none for a pod that no node runs.
pub(crate) fn grace(pod: &Value, asked: Option<i64>) -> i64 {
    if object::str_at(pod, "spec.nodeName").is_empty()
        || matches!(object::str_at(pod, "status.phase"), "Succeeded" | "Failed")
    {
        return 0;
    }
    let own = object::at(pod, "spec.terminationGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(30);
    // Kubernetes: less than nothing is one second.
    match asked.unwrap_or(own) {
        seconds if seconds < 0 => 1,
        seconds => seconds,
    }
}

/// Whether some container asks for an amount that is none.
pub(crate) fn has_bad_quantity(pod: &Value) -> bool {
    ["spec.containers", "spec.initContainers"]
        .into_iter()
        .filter_map(|path| object::at(pod, path)?.as_array())
        .flatten()
        .flat_map(|c| ["resources.limits", "resources.requests"].map(|list| object::at(c, list)))
        .filter_map(|list| list?.as_object())
        .flat_map(|map| map.values())
        .any(|amount| quantity::parse(amount).is_none())
}

/// The container that a pod's annotation names for requests that name none.
pub(crate) fn annotated_container(pod: &Value) -> Option<&str> {
    let annotated = object::meta(pod)
        .get("annotations")
        .and_then(|a| a.get("kubectl.kubernetes.io/default-container"))
        .and_then(Value::as_str);
    annotated.filter(|name| container_names(pod).any(|n| n == *name))
}

/// Names of all containers, init containers last.
pub(crate) fn container_names(pod: &Value) -> impl Iterator<Item = &str> {
    ["spec.containers", "spec.initContainers", "spec.ephemeralContainers"]
        .into_iter()
        .filter_map(|path| object::at(pod, path)?.as_array())
        .flatten()
        .filter_map(|c| c.get("name")?.as_str())
}

/// Binds a pod to a node, as a scheduler does.
pub(crate) fn bind(pod: &Value, binding: &Value, node: &str, now: &str) -> Value {
    let mut pod = pod.clone();
    for kind in ["annotations", "labels"] {
        if let Some(Value::Object(more)) = object::meta(binding).get(kind) {
            let slot = object::meta_mut(&mut pod).entry(kind).or_insert_with(|| json!({}));
            for (key, value) in more {
                slot[key] = value.clone();
            }
        }
    }
    object::child_mut(&mut pod, "spec").insert("nodeName".into(), node.into());
    let status = object::child_mut(&mut pod, "status");
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if let Value::Array(list) = conditions {
        list.retain(|c| c.get("type").is_none_or(|t| t != "PodScheduled"));
        list.push(json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now}));
    }
    pod
}
