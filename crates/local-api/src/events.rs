//! Events have two faces, `v1` and `events.k8s.io/v1`, over one stored form, the former.

use serde_json::Value;

use crate::kinds::{Builtin, Resource};

/// `(events.k8s.io/v1, v1)`
const NAMES: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("reportingController", "reportingComponent"),
];

fn has_other_face(resource: &Resource) -> bool {
    resource.is(Builtin::Event) && !resource.group.is_empty()
}

/// Gives an object the stored form.
pub(crate) fn to_storage(value: &mut Value, resource: &Resource) {
    if has_other_face(resource) {
        rename(value, |(new, old)| (new, old));
    }
    if resource.api_version() != resource.storage_api_version {
        value["apiVersion"] = resource.storage_api_version.clone().into();
    }
}

/// Gives a stored object the form in which `resource` serves it. `None` when that is the stored form.
pub(crate) fn from_storage(value: &Value, resource: &Resource) -> Option<Value> {
    let version = resource.api_version();
    if value.get("apiVersion").is_some_and(|v| *v == version.as_str()) {
        return None;
    }
    let mut value = value.clone();
    if has_other_face(resource) {
        rename(&mut value, |(new, old)| (old, new));
    }
    value["apiVersion"] = version.into();
    Some(value)
}

fn rename(value: &mut Value, direction: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str)) {
    let Value::Object(map) = value else { return };
    for pair in NAMES {
        let (from, to) = direction(pair);
        if let Some(moved) = map.shift_remove(from) {
            map.insert(to.into(), moved);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn there_and_back() {
        let face = crate::kinds::builtins().into_iter().find(|r| r.group == "events.k8s.io").expect("built in");
        let sent = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "note": "n", "regarding": {"name": "x"}});
        let mut stored = sent.clone();
        to_storage(&mut stored, &face);
        assert_eq!(
            stored,
            json!({"apiVersion": "v1", "kind": "Event", "message": "n", "involvedObject": {"name": "x"}})
        );
        assert_eq!(from_storage(&stored, &face), Some(sent));
    }
}
