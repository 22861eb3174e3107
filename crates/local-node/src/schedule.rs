//! The scheduler of a cluster that has one node: whether a pod may be here, and why not.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::env::NodeFacts;
use crate::pod::{quantity, resources};

/// Reason of a pod that no node fits.
pub const UNSCHEDULABLE: &str = "Unschedulable";

/// What the node has.
pub struct Room<'a> {
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Pods that are here.
    pub pods: usize,
    /// Most pods.
    pub most: usize,
    /// Processors and memory.
    pub facts: &'a NodeFacts,
}

/// Why a pod is not placed, as its condition says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Kubernetes' reason.
    pub reason: &'static str,
    /// The words that Kubernetes' scheduler uses.
    pub message: String,
}

/// Why a pod cannot be placed; `None` when it can.
pub fn refusal(pod: &Pod, room: &Room<'_>) -> Option<Refusal> {
    if pod.spec.as_ref()?.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
        let message = "Scheduling is blocked due to non-empty scheduling gates".to_owned();
        return Some(Refusal { reason: "SchedulingGated", message });
    }
    unschedulable(pod, room).map(|message| Refusal { reason: UNSCHEDULABLE, message })
}

fn unschedulable(pod: &Pod, room: &Room<'_>) -> Option<String> {
    let Room { labels, pods, most, facts } = room;
    let spec = pod.spec.as_ref()?;
    if spec.scheduler_name.as_deref().is_some_and(|name| name != "default-scheduler") {
        return Some("0/1 nodes are available: the pod asks for another scheduler.".to_owned());
    }
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let terms = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref())
        .map(|required| required.node_selector_terms.as_slice());
    if !selected || terms.is_some_and(|terms| !terms.iter().any(|term| matches_term(term, labels))) {
        return Some("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.".to_owned());
    }
    // What pods ask for is not added up, but one alone must fit.
    let requests = resources::of_pod(pod).requests.unwrap_or_default();
    let over = |name: &str, limit: i64, amount: fn(&Quantity) -> Option<i64>| {
        requests.get(name).and_then(amount).is_some_and(|asked| asked > limit)
    };
    let short: Vec<String> = [
        ("cpu", over("cpu", facts.cpu_milli, quantity::milli)),
        ("memory", over("memory", facts.memory, quantity::units)),
    ]
    .into_iter()
    .filter(|(_, over)| *over)
    .map(|(name, _)| format!("1 Insufficient {name}"))
    .collect();
    if !short.is_empty() {
        return Some(format!("0/1 nodes are available: {}.", short.join(", ")));
    }
    if pods >= most {
        return Some(format!("0/1 nodes are available: 1 Too many pods ({most} is the most that this node runs)."));
    }
    None
}

fn matches_term(term: &NodeSelectorTerm, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    // A term that says nothing matches nothing.
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let name = BTreeMap::from([(
        "metadata.name".to_owned(),
        labels.get("kubernetes.io/hostname").cloned().unwrap_or_default(),
    )]);
    expressions.iter().all(|requirement| holds(requirement, labels))
        && fields.iter().all(|requirement| holds(requirement, &name))
}

fn holds(requirement: &NodeSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let value = labels.get(&requirement.key);
    let values = requirement.values.as_deref().unwrap_or_default();
    let number = |text: &str| text.parse::<i64>().ok();
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|value| values.contains(value)),
        "NotIn" => value.is_none_or(|value| !values.contains(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        operator @ ("Gt" | "Lt") => {
            let (Some(value), Some(bound)) = (value.and_then(|v| number(v)), values.first().and_then(|v| number(v)))
            else {
                return false;
            };
            if operator == "Gt" { value > bound } else { value < bound }
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_go_where_their_selectors_allow() {
        let labels = crate::registration::labels("laptop");
        let facts = NodeFacts { cpu_milli: 2000, memory: 1 << 30, ..NodeFacts::default() };
        let room = |pods| Room { labels: &labels, pods, most: 10, facts: &facts };
        let cases = [
            (serde_json::json!({}), None),
            (serde_json::json!({"nodeSelector": {"kubernetes.io/os": "linux"}}), None),
            (serde_json::json!({"nodeSelector": {"gpu": "yes"}}), Some("affinity/selector")),
            (serde_json::json!({"schedulerName": "volcano"}), Some("another scheduler")),
            (serde_json::json!({"schedulingGates": [{"name": "g"}]}), Some("scheduling gates")),
            (
                serde_json::json!({"resources": {"requests": {"cpu": "2", "memory": "2Gi"}}}),
                Some("1 Insufficient memory."),
            ),
            (
                serde_json::json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                    {"nodeSelectorTerms": [{"matchExpressions": [
                        {"key": "kubernetes.io/os", "operator": "In", "values": ["windows"]}]}]}}}}),
                Some("affinity/selector"),
            ),
        ];
        for (spec, expected) in cases {
            let mut spec = spec;
            spec["containers"] = serde_json::json!([]);
            let pod: Pod = serde_json::from_value(serde_json::json!({"spec": spec})).unwrap();
            let refused = refusal(&pod, &room(0)).map(|refusal| refusal.message);
            assert_eq!(refused.is_some(), expected.is_some(), "{refused:?}");
            assert!(refused.unwrap_or_default().contains(expected.unwrap_or("")));
        }
        let pod: Pod = serde_json::from_value(serde_json::json!({"spec": {"containers": []}})).unwrap();
        assert!(refusal(&pod, &room(10)).unwrap().message.contains("Too many pods"));
    }
}
