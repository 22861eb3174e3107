//! Strategic merge: a merge patch that knows by which key the items of a list are told apart.

use serde_json::{Map, Value};

use crate::error::{ApiError, Result};
use crate::schema::{Defs, Node};

const PATCH: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE: &str = "$deleteFromPrimitiveList/";

/// Merges `patch` into `target`; `node` is the schema of both.
pub(crate) fn merge(target: &mut Value, patch: &Value, node: Option<&Node>, defs: &Defs) -> Result<()> {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return Ok(());
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(map) = target {
        merge_maps(map, patch, node, defs)?;
    }
    Ok(())
}

fn merge_maps(
    target: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    node: Option<&Node>,
    defs: &Defs,
) -> Result<()> {
    match patch.get(PATCH).and_then(Value::as_str) {
        Some("replace") => {
            *target = patch.iter().filter(|(key, _)| *key != PATCH).map(|(k, v)| (k.clone(), v.clone())).collect();
            return Ok(());
        }
        Some("delete") => {
            target.clear();
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => return Err(unknown_directive(other)),
    }
    if let Some(Value::Array(keep)) = patch.get(RETAIN) {
        target.retain(|key, _| keep.iter().any(|k| k == key));
    }
    for (key, value) in patch {
        if key == PATCH || key == RETAIN {
            continue;
        }
        if let Some(field) = key.strip_prefix(DELETE) {
            if let (Some(Value::Array(list)), Value::Array(gone)) = (target.get_mut(field), value) {
                list.retain(|item| !gone.contains(item));
            }
            continue;
        }
        if key.starts_with(ORDER) {
            continue;
        }
        let field = node.and_then(|n| n.field(defs, key));
        match value {
            Value::Null => {
                target.shift_remove(key);
            }
            Value::Object(inner) => {
                let slot = target.entry(key.clone()).or_insert(Value::Null);
                if slot.is_object() {
                    merge(slot, value, field, defs)?;
                } else {
                    *slot = Value::Object(Map::new());
                    merge(slot, &Value::Object(inner.clone()), field, defs)?;
                }
            }
            Value::Array(items) => {
                let order = patch.get(&format!("{ORDER}{key}")).and_then(Value::as_array);
                let merge_key = field.and_then(|f| f.merge_key.as_deref());
                let slot = target.entry(key.clone()).or_insert_with(|| Value::Array(Vec::new()));
                match (merge_key, slot) {
                    (Some(merge_key), Value::Array(list)) => {
                        let item = field.and_then(|f| f.item(defs));
                        let retain = field.is_some_and(|f| f.retain_keys);
                        let before = list.clone();
                        merge_lists(list, items, merge_key, retain, item, defs)?;
                        reorder(list, &before, order.unwrap_or(items), merge_key);
                    }
                    (_, slot) => *slot = Value::Array(items.clone()),
                }
            }
            other => {
                target.insert(key.clone(), other.clone());
            }
        }
    }
    // An order without a list: nothing was changed in the items, only their places.
    for (key, order) in patch {
        let Some(field) = key.strip_prefix(ORDER) else { continue };
        if patch.contains_key(field) {
            continue;
        }
        let merge_key = node.and_then(|n| n.field(defs, field)).and_then(|f| f.merge_key.as_deref());
        if let (Some(merge_key), Some(Value::Array(list)), Value::Array(order)) =
            (merge_key, target.get_mut(field), order)
        {
            let before = list.clone();
            reorder(list, &before, order, merge_key);
        }
    }
    Ok(())
}

fn unknown_directive(word: &str) -> ApiError {
    ApiError::bad_request(format!("unknown patch directive {PATCH}: {word}"))
}

fn merge_lists(
    list: &mut Vec<Value>,
    patch: &[Value],
    merge_key: &str,
    retain: bool,
    node: Option<&Node>,
    defs: &Defs,
) -> Result<()> {
    if merge_key.is_empty() {
        for item in patch {
            if !list.contains(item) {
                list.push(item.clone());
            }
        }
        return Ok(());
    }
    if patch
        .iter()
        .any(|item| item.get(PATCH).is_some_and(|p| p == "replace") && item.as_object().is_some_and(|o| o.len() == 1))
    {
        list.clear();
    }
    for item in patch {
        let Some(map) = item.as_object() else {
            return Err(ApiError::bad_request("the items of a merged list must be objects"));
        };
        let directive = map.get(PATCH).and_then(Value::as_str);
        if directive == Some("replace") && map.len() == 1 {
            continue;
        }
        let Some(id) = map.get(merge_key) else {
            return Err(ApiError::new(
                400,
                "BadRequest",
                format!("map: {item} does not contain declared merge key: {merge_key}"),
            ));
        };
        let found = list.iter().position(|existing| existing.get(merge_key) == Some(id));
        match (directive, found) {
            (Some("delete"), _) => list.retain(|existing| existing.get(merge_key) != Some(id)),
            (Some("replace"), _) => {
                let mut whole = map.clone();
                whole.shift_remove(PATCH);
                match found {
                    Some(at) => list[at] = Value::Object(whole),
                    None => list.push(Value::Object(whole)),
                }
            }
            (Some("merge") | None, Some(at)) => {
                // A list of unions: the item keeps the keys that the patch names, and no other.
                if retain
                    && !map.contains_key(RETAIN)
                    && map.len() > 1
                    && let Value::Object(existing) = &mut list[at]
                {
                    existing.retain(|key, _| map.contains_key(key));
                }
                merge(&mut list[at], item, node, defs)?;
            }
            (Some("merge") | None, None) => {
                let mut fresh = Value::Object(Map::new());
                merge(&mut fresh, item, node, defs)?;
                list.push(fresh);
            }
            (Some(other), _) => return Err(unknown_directive(other)),
        }
    }
    Ok(())
}

/// Puts the items that `order` names into its order, and the others, in theirs, between them: an item that is new comes
/// before what the server had, one that is not keeps its side of its neighbours.
fn reorder(list: &mut Vec<Value>, before: &[Value], order: &[Value], merge_key: &str) {
    let id = |item: &Value| if merge_key.is_empty() { Some(item.clone()) } else { item.get(merge_key).cloned() };
    let place = |item: &Value, order: &[Value]| {
        let wanted = id(item);
        order.iter().position(|o| wanted.is_some() && id(o) == wanted)
    };
    let (mut named, others): (Vec<Value>, Vec<Value>) = list.drain(..).partition(|item| place(item, order).is_some());
    named.sort_by_key(|item| place(item, order));
    let mut others = others.into_iter().peekable();
    for item in named {
        if let Some(own) = place(&item, before) {
            while let Some(other) = others.next_if(|other| place(other, before).is_some_and(|p| p < own)) {
                list.push(other);
            }
        }
        list.push(item);
    }
    list.extend(others);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(patch: Value) -> Value {
        let pods = crate::kinds::builtins().into_iter().find(|r| r.plural == "pods").expect("built in");
        let mut pod = json!({
            "metadata": {"labels": {"a": "1"}, "finalizers": ["x/a"]},
            "spec": {
                "containers": [{"name": "a", "image": "1", "env": [{"name": "K", "value": "v"}]}, {"name": "b", "image": "2"}],
                "volumes": [{"name": "v", "emptyDir": {}}],
                "tolerations": [{"key": "t"}],
            },
        });
        merge(&mut pod, &patch, Some(&pods.schema.root), &pods.schema.defs).expect("a good patch");
        pod
    }

    #[test]
    fn items_merge_by_their_key() {
        let out = pod(json!({"spec": {"containers": [{"name": "b", "image": "3"}, {"name": "c", "image": "4"}]}}));
        let list = out["spec"]["containers"].as_array().expect("a list");
        assert_eq!(list.len(), 3);
        assert_eq!((&list[0]["image"], &list[1]["image"], &list[2]["image"]), (&json!("1"), &json!("3"), &json!("4")));
    }

    #[test]
    fn delete_replace_and_null() {
        let out = pod(json!({
            "metadata": {"labels": {"a": null, "b": "2"}},
            "spec": {"containers": [{"name": "a", "$patch": "delete"}], "tolerations": [{"key": "u"}]},
        }));
        assert_eq!(out["spec"]["containers"], json!([{"name": "b", "image": "2"}]));
        assert_eq!(out["metadata"]["labels"], json!({"b": "2"}));
        assert_eq!(out["spec"]["tolerations"], json!([{"key": "u"}]));
        let out = pod(json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "z", "image": "9"}]}}));
        assert_eq!(out["spec"]["containers"], json!([{"name": "z", "image": "9"}]));
    }

    #[test]
    fn scalars_order_and_retained_keys() {
        let out = pod(json!({"metadata": {"finalizers": ["x/b"], "$deleteFromPrimitiveList/finalizers": ["x/a"]}}));
        assert_eq!(out["metadata"]["finalizers"], json!(["x/b"]));
        let out = pod(json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}));
        assert_eq!(out["spec"]["containers"][0]["name"], "b");
        let out = pod(
            json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}}),
        );
        assert_eq!(out["spec"]["volumes"], json!([{"name": "v", "hostPath": {"path": "/x"}}]));
    }
}
