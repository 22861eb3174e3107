//! Defaults of a pod that depend on its other fields. The constant ones are in the schema.

use serde_json::{Value, json};

use super::quantity;
use crate::object;

const CONTAINER_LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// Fields of a status that are shown although nothing is in them.
fn status_defaults(status: &mut Value) {
    for condition in status.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        for field in ["lastProbeTime", "lastTransitionTime"] {
            if let Value::Object(map) = condition {
                map.entry(field).or_insert(Value::Null);
            }
        }
    }
    for list in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        for container in status.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            for field in ["state", "lastState"] {
                if let Value::Object(map) = container {
                    map.entry(field).or_insert_with(|| json!({}));
                }
            }
        }
    }
    let first = status.get("podIPs").and_then(|ips| ips.get(0)?.get("ip").cloned());
    if let (Some(ip), Value::Object(map)) = (first, status) {
        map.entry("podIP").or_insert(ip);
    }
}

/// Fills in what depends on other fields.
pub(crate) fn defaults(pod: &mut Value) {
    if let Some(status) = pod.get_mut("status") {
        status_defaults(status);
    }
    let Some(Value::Object(spec)) = pod.get_mut("spec") else { return };
    let host_network = spec.get("hostNetwork").and_then(Value::as_bool).unwrap_or(false);
    for list in CONTAINER_LISTS {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            container_defaults(container, host_network);
        }
    }
    // The old name of the field is kept in step, as Kubernetes does.
    let account = spec.get("serviceAccountName").or(spec.get("serviceAccount")).cloned();
    if let Some(account) = account {
        spec.insert("serviceAccountName".into(), account.clone());
        spec.insert("serviceAccount".into(), account);
    }
    for volume in spec.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Value::Object(map) = volume
            && map.len() == 1
        {
            map.insert("emptyDir".into(), json!({}));
        }
    }
}

fn container_defaults(container: &mut Value, host_network: bool) {
    let Value::Object(map) = container else { return };
    if !map.contains_key("imagePullPolicy") {
        let image = map.get("image").and_then(Value::as_str).unwrap_or_default();
        let policy = if is_latest(image) { "Always" } else { "IfNotPresent" };
        map.insert("imagePullPolicy".into(), policy.into());
    }
    for port in map.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if host_network && port.get("hostPort").is_none() {
            port["hostPort"] = port.get("containerPort").cloned().unwrap_or_default();
        }
    }
    if let Some(Value::Object(resources)) = map.get_mut("resources") {
        for list in ["limits", "requests"] {
            for quantity in
                resources.get_mut(list).and_then(Value::as_object_mut).into_iter().flat_map(|m| m.values_mut())
            {
                if let Some(canonical) = quantity::canonical(quantity) {
                    *quantity = canonical.into();
                }
            }
        }
        let limits = resources.get("limits").and_then(Value::as_object).cloned().unwrap_or_default();
        if !limits.is_empty() {
            let requests = resources.entry("requests").or_insert_with(|| json!({}));
            if let Value::Object(requests) = requests {
                for (name, limit) in limits {
                    requests.entry(name).or_insert(limit);
                }
            }
        }
    }
}

/// Whether an image reference means the tag `latest`.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    match image.rsplit('/').next().and_then(|last| last.split_once(':')) {
        Some((_, tag)) => tag == "latest",
        None => true,
    }
}

/// What a new pod gets from the server.
pub(crate) fn prepare_create(pod: &mut Value) {
    let qos = qos_class(pod);
    pod["status"] = json!({"phase": "Pending", "qosClass": qos});
}

/// The pod's class by what its containers ask for and may have.
fn qos_class(pod: &Value) -> &'static str {
    let (mut any, mut guaranteed) = (false, true);
    let containers =
        ["spec.containers", "spec.initContainers"].into_iter().filter_map(|p| object::at(pod, p)?.as_array());
    for container in containers.flatten() {
        for resource in ["cpu", "memory"] {
            let of = |list: &str| container.get("resources")?.get(list)?.get(resource).and_then(quantity::parse);
            let (request, limit) = (of("requests"), of("limits"));
            any |= request.is_some_and(|r| r > 0.0) || limit.is_some_and(|l| l > 0.0);
            guaranteed &= limit.is_some() && request.is_none_or(|r| Some(r) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policy_follows_the_tag() {
        for (image, latest) in [
            ("nginx", true),
            ("nginx:latest", true),
            ("nginx:1.2", false),
            ("host:5000/nginx", true),
            ("host:5000/a/nginx:1", false),
            ("nginx@sha256:00", false),
        ] {
            assert_eq!(is_latest(image), latest, "{image}");
        }
    }

    #[test]
    fn classes() {
        let pod = |resources: Value| json!({"spec": {"containers": [{"resources": resources}]}});
        assert_eq!(qos_class(&pod(json!({}))), "BestEffort");
        assert_eq!(qos_class(&pod(json!({"requests": {"cpu": "1"}}))), "Burstable");
        let both = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(qos_class(&pod(json!({"requests": both, "limits": both}))), "Guaranteed");
    }
}
