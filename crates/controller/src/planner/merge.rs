//! A small strategic merge for pods and tasks.
//!
//! Objects merge member by member, `null` removes. Lists that Kubernetes merges by a key are merged
//! by it: containers, env, volumes, mounts, ports and a few more, see [`KEYS`]; an element may say
//! `$patch: delete` or `$patch: replace`, and so may an object. Every other list is replaced
//! whole, `tolerations` and lists of plain values among them; `$setElementOrder` and
//! `$deleteFromPrimitiveList` are passed over.

use serde_json::{Map, Value};

/// Lists that merge by a key: the list's name and the key's.
const KEYS: [(&str, &str); 13] = [
    ("containers", "name"),
    ("initContainers", "name"),
    ("ephemeralContainers", "name"),
    ("env", "name"),
    ("volumes", "name"),
    ("volumeMounts", "mountPath"),
    ("volumeDevices", "devicePath"),
    ("ports", "containerPort"),
    ("imagePullSecrets", "name"),
    ("hostAliases", "ip"),
    ("topologySpreadConstraints", "topologyKey"),
    ("resourceClaims", "name"),
    ("ownerReferences", "uid"),
];

const DIRECTIVE: &str = "$patch";

/// Merges `patch` into `base`.
pub fn strategic(base: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *base = patch.clone();
        return;
    };
    if changes.get(DIRECTIVE).and_then(Value::as_str) == Some("replace") || !base.is_object() {
        let mut fresh = Value::Object(Map::new());
        std::mem::swap(base, &mut fresh);
    }
    let Value::Object(members) = base else { return };
    for (name, change) in changes {
        if name.starts_with('$') {
            continue;
        }
        match change {
            Value::Null => {
                members.shift_remove(name);
            }
            Value::Object(inner) if inner.get(DIRECTIVE).and_then(Value::as_str) == Some("delete") => {
                members.shift_remove(name);
            }
            Value::Array(elements) => match KEYS.iter().find(|(list, _)| list == name) {
                Some((_, key)) => {
                    let list = members.entry(name.clone()).or_insert_with(|| Value::Array(Vec::new()));
                    merge_list(list, elements, key);
                }
                None => {
                    members.insert(name.clone(), change.clone());
                }
            },
            _ => strategic(members.entry(name.clone()).or_insert(Value::Null), change),
        }
    }
}

fn merge_list(list: &mut Value, patch: &[Value], key: &str) {
    if !list.is_array() {
        *list = Value::Array(Vec::new());
    }
    let Value::Array(elements) = list else { return };
    let directive = |v: &Value| v.get(DIRECTIVE).and_then(Value::as_str).map(str::to_owned);
    if patch.iter().any(|p| directive(p).as_deref() == Some("replace") && p.get(key).is_none()) {
        elements.clear();
    }
    for change in patch {
        let Some(id) = change.get(key) else { continue };
        let found = elements.iter().position(|e| e.get(key) == Some(id));
        match (found, directive(change).as_deref()) {
            (Some(at), Some("delete")) => {
                elements.remove(at);
            }
            (None, Some("delete")) => {}
            (Some(at), _) => strategic(&mut elements[at], change),
            (None, _) => {
                let mut fresh = Value::Null;
                strategic(&mut fresh, change);
                elements.push(fresh);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_and_env_merge_by_name() {
        let mut pod = json!({"spec": {"containers": [
            {"name": "a", "image": "x", "args": ["1", "2"], "env": [{"name": "K", "value": "old"}, {"name": "L", "value": "l"}]},
            {"name": "b", "image": "y"}]}});
        strategic(
            &mut pod,
            &json!({"spec": {"containers": [{"name": "a", "args": ["3"], "env": [{"name": "K", "value": "new"}, {"name": "M", "value": "m"}]}], "nodeName": "n"}}),
        );
        assert_eq!(
            pod,
            json!({"spec": {"containers": [
                {"name": "a", "image": "x", "args": ["3"], "env": [{"name": "K", "value": "new"}, {"name": "L", "value": "l"}, {"name": "M", "value": "m"}]},
                {"name": "b", "image": "y"}], "nodeName": "n"}})
        );
    }

    #[test]
    fn null_and_directives_remove() {
        let mut pod = json!({"a": 1, "spec": {"x": 1, "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w"}]}});
        strategic(&mut pod, &json!({"a": null, "spec": {"volumes": [{"name": "v", "$patch": "delete"}]}}));
        assert_eq!(pod, json!({"spec": {"x": 1, "volumes": [{"name": "w"}]}}));
        strategic(&mut pod, &json!({"spec": {"$patch": "replace", "y": 2}}));
        assert_eq!(pod, json!({"spec": {"y": 2}}));
    }
}
