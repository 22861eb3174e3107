//! Filling in defaults where a field is absent.

use serde_json::Value;

use super::{Defs, Node};

/// Sets every default whose field is absent, and goes on below what it has set.
pub fn fill(value: &mut Value, node: &Node, defs: &Defs) {
    let node = node.resolve(defs);
    match value {
        Value::Object(map) => {
            for (name, field) in &node.properties {
                let target = field.resolve(defs);
                let target_null =
                    field.nullable || target.nullable || target.preserve && target.kind == super::Kind::Any;
                // Kubernetes: null where it is no value is absence.
                if !target_null && map.get(name).is_some_and(Value::is_null) {
                    map.shift_remove(name);
                }
                let default = field.default.as_ref().or(target.default.as_ref());
                if let Some(default) = default {
                    let absent = !map.contains_key(name);
                    if absent {
                        map.insert(name.clone(), default.clone());
                    }
                }
                if let Some(child) = map.get_mut(name) {
                    fill(child, field, defs);
                }
            }
            if let Some(additional) = &node.additional {
                for (name, child) in map.iter_mut() {
                    if !node.properties.contains_key(name) {
                        fill(child, additional, defs);
                    }
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &node.items {
                for item in list {
                    fill(item, items, defs);
                }
            }
        }
        _ => {}
    }
}
