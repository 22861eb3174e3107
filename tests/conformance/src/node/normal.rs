//! Takes out of a status what differs from run to run and from place to place: identities, addresses, times. Lists
//! whose entries have names become maps, so that a difference is found by name and not by place.

use std::sync::LazyLock;

use k8s_openapi::api::core::v1::Pod;
use regex::Regex;
use serde_json::{Map, Value};

/// Lists and the field that names their entries.
const KEYED: [(&str, &str); 5] = [
    ("conditions", "type"),
    ("containerStatuses", "name"),
    ("initContainerStatuses", "name"),
    ("ephemeralContainerStatuses", "name"),
    ("volumeMounts", "mountPath"),
];

/// How control groups of version 1 say that there is no limit, which a kubelet takes for one in a pod's own resources.
const NO_LIMIT: &str = "9007199254740988Ki";

#[expect(clippy::expect_used, reason = "the expressions are constants, and a test compiles them")]
static PATTERNS: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    [
        (r"1970-01-01T00:00:00Z", "<epoch>"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<time>"),
        (r"(containerd|osb)://[0-9a-f]{64}", "<container>"),
        (r"(sha256:)?[0-9a-f]{64}", "<digest>"),
    ]
    .map(|(pattern, name)| (Regex::new(pattern).expect("a constant"), name))
    .into()
});

/// What of one pod must not be compared.
#[derive(Debug, Clone, Default)]
pub struct Facts(Vec<(String, &'static str)>);

impl Facts {
    /// The facts of a pod, longest first, so that no fact is found in another one.
    pub fn of(pod: &Pod) -> Self {
        let status = pod.status.clone().unwrap_or_default();
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let mut facts: Vec<(String, &'static str)> = [
            (pod.metadata.uid.clone(), "<uid>"),
            (pod.metadata.namespace.clone(), "<namespace>"),
            (node, "<node>"),
            (status.pod_ip, "<pod IP>"),
            (status.host_ip, "<host IP>"),
        ]
        .into_iter()
        .filter_map(|(value, name)| value.filter(|value| !value.is_empty()).map(|value| (value, name)))
        .collect();
        facts.sort_by_key(|(value, _)| std::cmp::Reverse(value.len()));
        Self(facts)
    }

    /// The text without what must not be compared.
    pub fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (pattern, name) in PATTERNS.iter() {
            text = pattern.replace_all(&text, *name).into_owned();
        }
        for (value, name) in &self.0 {
            text = text.replace(value, name);
        }
        text
    }

    /// The pod's status without what must not be compared.
    pub fn status(&self, status: &Value) -> Value {
        let mut status = self.value(status);
        // A kubelet reads them from the control groups, which go some time after the containers have ended.
        if matches!(status["phase"].as_str(), Some("Succeeded" | "Failed"))
            && let Some(map) = status.as_object_mut()
        {
            map.remove("resources");
        }
        status
    }

    /// The value without what must not be compared.
    pub fn value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.text(text).into(),
            Value::Array(list) => list.iter().map(|value| self.value(value)).collect(),
            Value::Object(map) => self.map(map).into(),
            other => other.clone(),
        }
    }

    fn map(&self, map: &Map<String, Value>) -> Map<String, Value> {
        let mut normal = Map::new();
        for (key, value) in map.iter().filter(|(_, value)| !value.is_null() && *value != NO_LIMIT) {
            let named = KEYED.iter().find(|(list, _)| list == key);
            let value = match (named, value) {
                (Some((_, name)), Value::Array(list)) => Value::Object(
                    list.iter()
                        .map(|entry| (entry[*name].as_str().unwrap_or_default().to_owned(), self.value(entry)))
                        .collect(),
                ),
                (_, value) => self.value(value),
            };
            if key == "resources" && value.pointer("/limits").and_then(Value::as_object).is_some_and(Map::is_empty) {
                normal.insert(key.clone(), Value::Object(Map::new()));
                continue;
            }
            normal.insert(key.clone(), value);
        }
        normal.sort_keys();
        normal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_one_run_goes_and_what_is_named_is_found_by_name() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"namespace": "ns-7", "uid": "u-1"},
            "status": {"podIP": "10.1.0.21", "hostIP": "10.1.0.2", "startTime": "2026-01-02T03:04:05Z",
                "conditions": [{"type": "Ready", "status": "True", "message": "of ns-7 at 10.1.0.21"}]},
        }))
        .unwrap();
        let status = serde_json::to_value(pod.status.as_ref().unwrap()).unwrap();
        let normal = Facts::of(&pod).status(&status);
        assert_eq!(normal["conditions"]["Ready"]["message"], "of <namespace> at <pod IP>");
        assert_eq!((&normal["podIP"], &normal["hostIP"]), (&"<pod IP>".into(), &"<host IP>".into()));
        assert_eq!(normal["startTime"], "<time>");
    }
}
