//! The types of built-in kinds: a value Go could not decode is refused before anything else looks at it.

use serde_json::Value;

use super::{Defs, Kind, Node, join};

/// The first value of a wrong type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeFault {
    /// Path with indices, e.g. `spec.containers[0].ports[0].containerPort`.
    pub path: String,
    /// JSON type that was found.
    pub found: &'static str,
    /// Type that was wanted, as OpenAPI or Go names it.
    pub wanted: String,
}

/// Finds the first value whose JSON type the schema does not allow. `null` is absence everywhere.
pub fn first_type_fault(value: &Value, node: &Node, defs: &Defs) -> Option<TypeFault> {
    check(value, node, defs, "")
}

fn check(value: &Value, node: &Node, defs: &Defs, path: &str) -> Option<TypeFault> {
    let node = node.resolve(defs);
    if value.is_null() {
        return None;
    }
    // Quantities, the texts or numbers of the built-in kinds, may have fractions.
    let quantity = node.int_or_string;
    let fits = node.takes(value, |v| if quantity { v.is_number() } else { fits_integer(v, node.format.as_deref()) });
    if !fits {
        return Some(TypeFault { path: path.to_owned(), found: found(value), wanted: wanted(node) });
    }
    match value {
        Value::Object(map) => map.iter().find_map(|(name, child)| {
            let field = node.properties.get(name).or(node.additional.as_deref())?;
            check(child, field, defs, &join(path, name))
        }),
        Value::Array(list) => {
            let items = node.items.as_deref()?;
            list.iter().enumerate().find_map(|(i, item)| check(item, items, defs, &format!("{path}[{i}]")))
        }
        _ => None,
    }
}

fn fits_integer(value: &Value, format: Option<&str>) -> bool {
    match format {
        Some("int32") => value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
        _ => value.is_i64() || value.is_u64(),
    }
}

fn found(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn wanted(node: &Node) -> String {
    match (node.kind, node.format.as_deref()) {
        (Kind::Integer, Some(format)) => format.to_owned(),
        (Kind::Integer, None) => "int64".into(),
        (Kind::Boolean, _) => "bool".into(),
        (Kind::Array, _) => "list".into(),
        (kind, _) => kind.word().into(),
    }
}
