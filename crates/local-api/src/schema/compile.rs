//! From JSON Schema text, of a CRD or of the built-in kinds, to [`Node`]s.

use serde_json::{Map, Value};

use super::{Kind, ListKind, Node, Rules};

/// Why a schema is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {what}")]
pub struct SchemaError {
    /// Path inside the schema.
    pub path: String,
    /// What is wrong.
    pub what: String,
}

const DEPTH: usize = 64;

/// Compiles one schema.
pub fn compile(schema: &Value) -> Result<Node, SchemaError> {
    node(schema, "openAPIV3Schema", 0)
}

fn fault(path: &str, what: impl Into<String>) -> SchemaError {
    SchemaError { path: path.into(), what: what.into() }
}

fn node(schema: &Value, path: &str, depth: usize) -> Result<Node, SchemaError> {
    if depth > DEPTH {
        return Err(fault(path, "nested too deeply"));
    }
    let map = match schema {
        Value::Object(map) => map,
        Value::Bool(true) => return Ok(Node { preserve: true, ..Node::default() }),
        _ => return Err(fault(path, "must be an object")),
    };
    let flag = |key: &str| map.get(key).and_then(Value::as_bool).unwrap_or(false);
    let text = |key: &str| map.get(key).and_then(Value::as_str);
    let child = |value: &Value, name: &str| node(value, &format!("{path}.{name}"), depth + 1);

    let mut nullable = flag("nullable");
    let kind = match map.get("type") {
        None => Kind::Any,
        Some(Value::String(word)) => kind_of(word).ok_or_else(|| fault(path, format!("unknown type {word}")))?,
        Some(Value::Array(words)) => {
            nullable |= words.iter().any(|w| w == "null");
            let mut kinds = words.iter().filter_map(Value::as_str).filter_map(kind_of);
            match (kinds.next(), kinds.next()) {
                (Some(kind), None) => kind,
                _ => Kind::Any,
            }
        }
        Some(_) => return Err(fault(path, "type must be a string")),
    };
    let mut properties = std::collections::BTreeMap::new();
    if let Some(Value::Object(fields)) = map.get("properties") {
        for (name, schema) in fields {
            properties.insert(name.clone(), child(schema, &format!("properties[{name}]"))?);
        }
    }
    let items = match map.get("items") {
        Some(schema) => Some(Box::new(child(schema, "items")?)),
        None => None,
    };
    let mut preserve = flag("x-kubernetes-preserve-unknown-fields");
    let additional = match map.get("additionalProperties") {
        None | Some(Value::Bool(false)) => None,
        Some(Value::Bool(true)) => {
            preserve = true;
            None
        }
        Some(schema) => Some(Box::new(child(schema, "additionalProperties")?)),
    };
    let list = match text("x-kubernetes-list-type") {
        Some("set") => ListKind::Set,
        Some("map") => {
            let keys = map.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            ListKind::Map(keys.into_iter().flatten().filter_map(Value::as_str).map(Into::into).collect())
        }
        _ => ListKind::Atomic,
    };
    let merges = text("x-kubernetes-patch-strategy").unwrap_or_default();
    let merge_key = match text("x-kubernetes-patch-merge-key") {
        Some(key) => Some(key.to_owned()),
        None => merges.split(',').any(|s| s == "merge").then(String::new),
    };
    Ok(Node {
        reference: text("$ref").map(|r| r.rsplit('/').next().unwrap_or(r).to_owned()),
        kind,
        format: text("format").map(Into::into),
        properties,
        items,
        additional,
        preserve,
        embedded: flag("x-kubernetes-embedded-resource"),
        int_or_string: flag("x-kubernetes-int-or-string"),
        nullable,
        default: map.get("default").filter(|d| !d.is_null()).cloned(),
        list,
        atomic: text("x-kubernetes-map-type") == Some("atomic"),
        merge_key,
        retain_keys: merges.split(',').any(|s| s == "retainKeys"),
        rules: rules(map, path, depth)?,
    })
}

fn kind_of(word: &str) -> Option<Kind> {
    Some(match word {
        "object" => Kind::Object,
        "array" => Kind::Array,
        "string" => Kind::String,
        "integer" => Kind::Integer,
        "number" => Kind::Number,
        "boolean" => Kind::Boolean,
        _ => return None,
    })
}

fn rules(map: &Map<String, Value>, path: &str, depth: usize) -> Result<Option<Box<Rules>>, SchemaError> {
    const WORDS: [&str; 18] = [
        "required",
        "enum",
        "minimum",
        "maximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "pattern",
        "minItems",
        "maxItems",
        "uniqueItems",
        "minProperties",
        "maxProperties",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "x-kubernetes-validations",
    ];
    if !WORDS.iter().any(|w| map.contains_key(*w)) {
        return Ok(None);
    }
    let count = |key: &str| map.get(key).and_then(Value::as_u64);
    let bound = |key: &str, exclusive: &str| {
        let exclusive = map.get(exclusive).and_then(Value::as_bool).unwrap_or(false);
        map.get(key).and_then(Value::as_f64).map(|n| (n, exclusive))
    };
    let branches = |key: &str| -> Result<Vec<Node>, SchemaError> {
        let list = map.get(key).and_then(Value::as_array);
        list.into_iter()
            .flatten()
            .enumerate()
            .map(|(i, schema)| node(schema, &format!("{path}.{key}[{i}]"), depth + 1))
            .collect()
    };
    let pattern = match map.get("pattern").and_then(Value::as_str) {
        Some(text) => Some(regex::Regex::new(text).map_err(|e| fault(&format!("{path}.pattern"), e.to_string()))?),
        None => None,
    };
    let not = match map.get("not") {
        Some(schema) => Some(Box::new(node(schema, &format!("{path}.not"), depth + 1)?)),
        None => None,
    };
    let entries = map.get("x-kubernetes-validations").and_then(Value::as_array);
    let cel = entries
        .into_iter()
        .flatten()
        .enumerate()
        .map(|(index, entry)| {
            super::expressions::compile(entry)
                .map_err(|(field, what)| fault(&format!("{path}.x-kubernetes-validations[{index}].{field}"), what))
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Some(Box::new(Rules {
        cel,
        required: map
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(Into::into)
            .collect(),
        allowed: map.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
        minimum: bound("minimum", "exclusiveMinimum"),
        maximum: bound("maximum", "exclusiveMaximum"),
        multiple_of: map.get("multipleOf").and_then(Value::as_f64),
        min_length: count("minLength"),
        max_length: count("maxLength"),
        pattern,
        min_items: count("minItems"),
        max_items: count("maxItems"),
        unique: map.get("uniqueItems").and_then(Value::as_bool).unwrap_or(false),
        min_properties: count("minProperties"),
        max_properties: count("maxProperties"),
        all_of: branches("allOf")?,
        any_of: branches("anyOf")?,
        one_of: branches("oneOf")?,
        not,
    })))
}
