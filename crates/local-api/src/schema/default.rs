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
                let default = field.default.as_ref().or(target.default.as_ref());
                if let Some(default) = default {
                    let absent = match map.get(name) {
                        None => true,
                        // Kubernetes: null where null is no value counts as absent and takes the default.
                        Some(Value::Null) => !(field.nullable || target.nullable),
                        Some(_) => false,
                    };
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
