//! Fields that no schema knows: dropped silently, or named to who asked for strictness.

use serde_json::Value;

use super::{Defs, Node, join};

/// Removes what the schema does not know.
pub fn prune(value: &mut Value, node: &Node, defs: &Defs) {
    walk(value, node, defs, true, &mut |map, name| {
        map.shift_remove(name);
    });
}

/// Paths of what the schema does not know, in the order of appearance.
pub fn unknown_fields(value: &Value, node: &Node, defs: &Defs) -> Vec<String> {
    let mut found = Vec::new();
    list_unknown(value, node, defs, true, "", &mut found);
    found
}

/// Fields every object has, at the root and in embedded objects.
const OBJECT_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

fn walk(
    value: &mut Value,
    node: &Node,
    defs: &Defs,
    whole: bool,
    drop: &mut impl FnMut(&mut serde_json::Map<String, Value>, &str),
) {
    let node = node.resolve(defs);
    match value {
        Value::Object(map) => {
            let names: Vec<String> = map.keys().cloned().collect();
            for name in names {
                if (whole || node.embedded)
                    && OBJECT_FIELDS.contains(&name.as_str())
                    && !node.properties.contains_key(&name)
                {
                    if let (false, "metadata", Some(child)) = (whole, name.as_str(), map.get_mut(&name)) {
                        walk(child, &crate::crd::metadata_node(), defs, false, drop);
                    }
                    continue;
                }
                match node.properties.get(&name).or(node.additional.as_deref()) {
                    Some(field) => {
                        if let Some(child) = map.get_mut(&name) {
                            walk(child, field, defs, false, drop);
                        }
                    }
                    None if node.preserve || node.int_or_string => {}
                    None => drop(map, &name),
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &node.items {
                for item in list {
                    walk(item, items, defs, false, drop);
                }
            }
        }
        _ => {}
    }
}

fn list_unknown(value: &Value, node: &Node, defs: &Defs, whole: bool, path: &str, found: &mut Vec<String>) {
    let node = node.resolve(defs);
    match value {
        Value::Object(map) => {
            for (name, child) in map {
                if (whole || node.embedded)
                    && OBJECT_FIELDS.contains(&name.as_str())
                    && !node.properties.contains_key(name)
                {
                    if !whole && name == "metadata" {
                        let node = crate::crd::metadata_node();
                        list_unknown(child, &node, defs, false, &join(path, name), found);
                    }
                    continue;
                }
                let here = join(path, name);
                match node.properties.get(name).or(node.additional.as_deref()) {
                    Some(field) => list_unknown(child, field, defs, false, &here, found),
                    None if node.preserve || node.int_or_string => {}
                    None => found.push(here),
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &node.items {
                for (index, item) in list.iter().enumerate() {
                    list_unknown(item, items, defs, false, &format!("{path}[{index}]"), found);
                }
            }
        }
        _ => {}
    }
}
