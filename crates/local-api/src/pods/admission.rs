//! What kube-apiserver's admission plugins do to a new pod, as far as the embedded cluster has what they are about.

use serde_json::{Value, json};

use crate::core::Core;
use crate::error::{ApiError, Result};
use crate::object;
use crate::store::Key;
use crate::verbs::Target;

/// Taints that every pod tolerates for a while, so that a node may come back.
const PASSING_TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// Adds service account, priority and tolerations, and refuses what names something that is not there.
pub(crate) fn admit(core: &Core, target: &Target, pod: &mut Value) -> Result<()> {
    let refuse = |pod: &Value, why: String| Err(ApiError::forbidden("", "pods", object::name(pod), &why));
    let account = object::str_at(pod, "spec.serviceAccountName").to_owned();
    // The default account comes with the namespace, a moment after it.
    if !account.is_empty() && account != "default" {
        let key = Key::new(&"serviceaccounts".into(), &target.namespace, &account);
        if core.store.get(&key).is_none() {
            let namespace = &target.namespace;
            let why = format!(
                "error looking up service account {namespace}/{account}: serviceaccount \"{account}\" not found"
            );
            return refuse(pod, why);
        }
    }
    let priority = match object::str_at(pod, "spec.priorityClassName") {
        "" => 0,
        "system-cluster-critical" => 2_000_000_000,
        "system-node-critical" => 2_000_001_000,
        other => {
            let why = format!("no PriorityClass with name {other} was found");
            return refuse(pod, why);
        }
    };
    let runtime = object::str_at(pod, "spec.runtimeClassName").to_owned();
    if !runtime.is_empty() {
        return refuse(pod, format!("pod rejected: RuntimeClass \"{runtime}\" not found"));
    }
    let Some(Value::Object(spec)) = pod.get_mut("spec") else { return Ok(()) };
    if account.is_empty() {
        spec.insert("serviceAccountName".into(), "default".into());
        spec.insert("serviceAccount".into(), "default".into());
    }
    spec.entry("preemptionPolicy").or_insert_with(|| "PreemptLowerPriority".into());
    spec.entry("priority").or_insert_with(|| priority.into());
    tolerate(spec.entry("tolerations").or_insert_with(|| json!([])));
    Ok(())
}

fn tolerate(tolerations: &mut Value) {
    let Value::Array(list) = tolerations else { return };
    for taint in PASSING_TAINTS {
        let tolerated = list.iter().any(|t| {
            let text = |key: &str| t.get(key).and_then(Value::as_str).unwrap_or_default();
            matches!(text("key"), key if key == taint || key.is_empty()) && matches!(text("effect"), "NoExecute" | "")
        });
        if !tolerated {
            list.push(json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}));
        }
    }
}
