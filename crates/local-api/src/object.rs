//! Reading and writing the few fields of an object that the server itself cares for.

use serde_json::{Map, Value};

/// Shorthand for a JSON object.
pub type Object = Map<String, Value>;

/// `metadata`, or an empty object where it is missing or malformed.
pub fn meta(value: &Value) -> &Object {
    static EMPTY: std::sync::LazyLock<Object> = std::sync::LazyLock::new(Object::new);
    value.get("metadata").and_then(Value::as_object).unwrap_or(&EMPTY)
}

/// `metadata`, made when missing.
pub fn meta_mut(value: &mut Value) -> &mut Object {
    child_mut(value, "metadata")
}

/// The object under `key`, made when missing or of another type.
pub fn child_mut<'a>(value: &'a mut Value, key: &str) -> &'a mut Object {
    if !value.is_object() {
        *value = Value::Object(Object::new());
    }
    let slot = &mut value[key];
    if !slot.is_object() {
        *slot = Value::Object(Object::new());
    }
    match slot {
        Value::Object(map) => map,
        _ => unreachable!("the slot was made an object just above"),
    }
}

/// A string of `metadata`, empty where it is missing.
pub fn meta_str<'a>(value: &'a Value, key: &str) -> &'a str {
    meta(value).get(key).and_then(Value::as_str).unwrap_or_default()
}

/// `metadata.name`.
pub fn name(value: &Value) -> &str {
    meta_str(value, "name")
}

/// `metadata.namespace`.
pub fn namespace(value: &Value) -> &str {
    meta_str(value, "namespace")
}

/// `metadata.uid`.
pub fn uid(value: &Value) -> &str {
    meta_str(value, "uid")
}

/// `metadata.resourceVersion` as a number; 0 where there is none.
pub fn resource_version(value: &Value) -> u64 {
    meta_str(value, "resourceVersion").parse().unwrap_or(0)
}

/// Whether a deletion is under way.
pub fn is_terminating(value: &Value) -> bool {
    meta(value).get("deletionTimestamp").is_some_and(|t| !t.is_null())
}

/// `metadata.finalizers`.
pub fn finalizers(value: &Value) -> impl Iterator<Item = &str> {
    meta(value).get("finalizers").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// Whether `finalizer` is among them.
pub fn has_finalizer(value: &Value, finalizer: &str) -> bool {
    finalizers(value).any(|f| f == finalizer)
}

/// Takes one finalizer away; an empty list goes too.
pub fn remove_finalizer(value: &mut Value, finalizer: &str) {
    let meta = meta_mut(value);
    if let Some(Value::Array(list)) = meta.get_mut("finalizers") {
        list.retain(|f| f.as_str() != Some(finalizer));
        if list.is_empty() {
            meta.shift_remove("finalizers");
        }
    }
}

/// Adds one finalizer unless it is there.
pub fn add_finalizer(value: &mut Value, finalizer: &str) {
    if !has_finalizer(value, finalizer) {
        match meta_mut(value).entry("finalizers").or_insert_with(|| Value::Array(Vec::new())) {
            Value::Array(list) => list.push(finalizer.into()),
            other => *other = Value::Array(vec![finalizer.into()]),
        }
    }
}

/// One `ownerReferences` entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner<'a> {
    /// `apiVersion` of the owner.
    pub api_version: &'a str,
    /// `kind` of the owner.
    pub kind: &'a str,
    /// `name` of the owner.
    pub name: &'a str,
    /// `uid` of the owner.
    pub uid: &'a str,
    /// Whether the owner's foreground deletion waits for this object.
    pub blocks: bool,
}

/// `metadata.ownerReferences`.
pub fn owners(value: &Value) -> impl Iterator<Item = Owner<'_>> {
    meta(value).get("ownerReferences").and_then(Value::as_array).into_iter().flatten().filter_map(|r| {
        let text = |key: &str| r.get(key).and_then(Value::as_str);
        Some(Owner {
            api_version: text("apiVersion").unwrap_or_default(),
            kind: text("kind").unwrap_or_default(),
            name: text("name").unwrap_or_default(),
            uid: text("uid")?,
            blocks: r.get("blockOwnerDeletion").and_then(Value::as_bool).unwrap_or(false),
        })
    })
}

/// The value at a dotted path of plain keys.
pub fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |v, key| v.get(key)).filter(|v| !v.is_null())
}

/// The string at a dotted path, empty where there is none.
pub fn str_at<'a>(value: &'a Value, path: &str) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or_default()
}

/// Equality that ignores the order of object keys (serde_json keeps the order but compares maps by content).
pub fn same_but_managed_fields(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return a == b };
    a.len() == b.len()
        && a.iter().all(|(key, value)| {
            let Some(other) = b.get(key) else { return false };
            if key != "metadata" {
                return value == other;
            }
            let (Some(m), Some(n)) = (value.as_object(), other.as_object()) else { return value == other };
            let counted = |map: &Object| map.len() - usize::from(map.contains_key("managedFields"));
            counted(m) == counted(n) && m.iter().all(|(k, v)| k == "managedFields" || n.get(k).is_some_and(|w| v == w))
        })
}
