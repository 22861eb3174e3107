//! Validating a custom resource, with causes in kube-apiserver's words.

use serde_json::Value;

use super::formats::format_fits;
use super::{Defs, Kind, ListKind, Node, Rules, join};
use crate::error::Cause;

/// Everything the schema has against `value`.
pub fn validate(value: &Value, node: &Node, defs: &Defs) -> Vec<Cause> {
    let mut causes = Vec::new();
    visit(value, node, defs, "", &mut causes);
    causes
}

fn visit(value: &Value, node: &Node, defs: &Defs, path: &str, causes: &mut Vec<Cause>) {
    let node = node.resolve(defs);
    if value.is_null() && node.nullable {
        return;
    }
    if !type_fits(value, node) {
        causes.push(wrong_type(value, node, path));
        causes.extend(too_wide(value, node, path));
        if node.int_or_string {
            causes.push(whole(&format!("{path:?} must validate at least one schema (anyOf)")));
            let integer = Node { kind: Kind::Integer, ..Node::default() };
            causes.push(wrong_type(value, &integer, path));
        }
        return;
    }
    causes.extend(too_wide(value, node, path));
    if let Some(rules) = &node.rules {
        apply(value, rules, node, defs, path, causes);
    }
    if let (Value::String(text), Some(format)) = (value, node.format.as_deref())
        && !format_fits(text, format)
    {
        let detail = format!("{path} in body must be of type {format}: {text:?}");
        causes.push(Cause::wrong_type(path, &value.to_string(), detail));
    }
    if let (Value::Object(map), true) = (value, node.embedded) {
        for field in ["apiVersion", "kind"] {
            if map.get(field).and_then(Value::as_str).is_none_or(str::is_empty) {
                causes.push(Cause::required(join(path, field), ""));
            }
        }
    }
    match value {
        Value::Object(map) => {
            for (name, child) in map {
                if let Some(field) = node.properties.get(name).or(node.additional.as_deref()) {
                    visit(child, field, defs, &dotted(path, name), causes);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &node.items {
                for (index, item) in list.iter().enumerate() {
                    visit(item, items, defs, &format!("{path}[{index}]"), causes);
                }
            }
            unique(list, &node.list, path, causes);
        }
        _ => {}
    }
}

fn type_fits(value: &Value, node: &Node) -> bool {
    // A fraction of zero is no fraction, except where a text is allowed instead.
    node.takes(value, |v| {
        v.is_i64() || v.is_u64() || !node.int_or_string && v.as_f64().is_some_and(|n| n.fract() == 0.0)
    })
}

fn type_word(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn wrong_type(value: &Value, node: &Node, path: &str) -> Cause {
    let found = type_word(value);
    let wanted = match (node.int_or_string, node.format.as_deref()) {
        (true, _) => "integer,string",
        // Kubernetes shows the format where the type is right but for a fraction.
        (false, Some(format)) if node.kind == Kind::Integer && found == "float64" => format,
        (false, _) => node.kind.word(),
    };
    // Kubernetes shows the offending type where the value itself may be long.
    let shown = format!("\"{found}\"");
    Cause::wrong_type(path, &shown, format!("{path} in body must be of type {wanted}: \"{found}\""))
}

/// A number that is no integer of 32 bits where one is wanted.
fn too_wide(value: &Value, node: &Node, path: &str) -> Option<Cause> {
    let number = value.as_f64().filter(|_| value.is_number() && node.format.as_deref() == Some("int32"))?;
    let fits = number.fract() == 0.0 && (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number);
    (!fits).then(|| whole(&format!("Checked value must be of type integer with format int32 in {path}")))
}

/// A path in which keys with dots are not told apart, as in Kubernetes' messages of schemas.
fn dotted(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// A fault that is shown without its field, as those of whole branches are.
fn whole(detail: &str) -> Cause {
    Cause::invalid("<nil>", &"".into(), detail)
}

fn apply(value: &Value, rules: &Rules, node: &Node, defs: &Defs, path: &str, causes: &mut Vec<Cause>) {
    let body = path;
    if !rules.allowed.is_empty() && !rules.allowed.contains(value) {
        let words = rules.allowed.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), Into::into));
        causes.push(Cause::unsupported(path, value, &words.collect::<Vec<_>>()));
    }
    match value {
        Value::Object(map) => {
            for name in &rules.required {
                if !map.contains_key(name) {
                    causes.push(Cause::required(join(path, name), ""));
                }
            }
            let count = map.len() as u64;
            if let Some(min) = rules.min_properties.filter(|m| count < *m) {
                let detail = format!("{body} in body should have at least {min} properties");
                causes.push(Cause::invalid(path, &count.into(), detail));
            }
            if let Some(max) = rules.max_properties.filter(|m| count > *m) {
                causes.push(too_many(path, count, max));
            }
        }
        Value::Array(list) => {
            let count = list.len() as u64;
            if let Some(min) = rules.min_items.filter(|m| count < *m) {
                let detail = format!("{body} in body should have at least {min} items");
                causes.push(Cause::invalid(path, &count.into(), detail));
            }
            if let Some(max) = rules.max_items.filter(|m| count > *m) {
                causes.push(too_many(path, count, max));
            }
            if rules.unique {
                unique(list, &ListKind::Set, path, causes);
            }
        }
        Value::String(text) => {
            let count = text.chars().count() as u64;
            if let Some(min) = rules.min_length.filter(|m| count < *m) {
                let detail = format!("{body} in body should be at least {min} chars long");
                causes.push(Cause::invalid(path, value, detail));
            }
            // Kubernetes looks at the pattern where the length is right.
            if let Some(max) = rules.max_length.filter(|m| count > *m) {
                causes.push(Cause::too_long(path, max));
            } else if rules.min_length.is_none_or(|m| count >= m)
                && let Some(pattern) = rules.pattern.as_ref().filter(|p| !p.is_match(text))
            {
                let detail = format!("{body} in body should match '{}'", pattern.as_str());
                causes.push(Cause::invalid(path, value, detail));
            }
        }
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or_default();
            if let Some((min, exclusive)) = rules.minimum
                && (number < min || exclusive && number == min)
            {
                let word = if exclusive { "greater than" } else { "greater than or equal to" };
                causes.push(Cause::invalid(path, value, format!("{body} in body should be {word} {min}")));
            }
            if let Some((max, exclusive)) = rules.maximum
                && (number > max || exclusive && number == max)
            {
                let word = if exclusive { "less than" } else { "less than or equal to" };
                causes.push(Cause::invalid(path, value, format!("{body} in body should be {word} {max}")));
            }
            if let Some(step) = rules.multiple_of.filter(|s| *s != 0.0 && (number / s).fract() != 0.0) {
                causes.push(Cause::invalid(path, value, format!("{body} in body should be a multiple of {step}")));
            }
        }
        _ => {}
    }
    for branch in &rules.all_of {
        visit(value, branch, defs, path, causes);
    }
    let holds = |branch: &Node| validate(value, branch, defs).is_empty();
    // An int-or-string node carries `anyOf: [integer, string]` by convention; its type was checked already.
    if !node.int_or_string && !rules.any_of.is_empty() && !rules.any_of.iter().any(holds) {
        causes.push(whole(&format!("{path:?} must validate at least one schema (anyOf)")));
        causes.extend(best_branch(value, &rules.any_of, defs, path));
    }
    if !rules.one_of.is_empty() {
        let rule = format!("{path:?} must validate one and only one schema (oneOf).");
        match rules.one_of.iter().filter(|b| holds(b)).count() {
            0 => {
                causes.push(whole(&format!("{rule} Found none valid")));
                causes.extend(best_branch(value, &rules.one_of, defs, path));
            }
            1 => {}
            many => causes.push(whole(&format!("{rule} Found {many} valid alternatives"))),
        }
    }
    if rules.not.as_deref().is_some_and(holds) {
        causes.push(whole(&format!("{path:?} must not validate the schema (not)")));
    }
}

/// What the first of several alternatives has against a value.
fn best_branch(value: &Value, branches: &[Node], defs: &Defs, path: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    if let Some(branch) = branches.first() {
        visit(value, branch, defs, path, &mut causes);
    }
    causes
}

fn too_many(path: &str, count: u64, max: u64) -> Cause {
    let message = format!("Too many: {count}: must have at most {max} items");
    Cause { reason: "FieldValueTooMany", message, field: path.into() }
}

fn unique(list: &[Value], kind: &ListKind, path: &str, causes: &mut Vec<Cause>) {
    let identity = |item: &Value| match kind {
        ListKind::Atomic => None,
        ListKind::Set => Some(item.clone()),
        ListKind::Map(keys) => {
            let map = item.as_object()?;
            Some(Value::Object(keys.iter().filter_map(|k| Some((k.clone(), map.get(k)?.clone()))).collect()))
        }
    };
    let mut seen: Vec<Value> = Vec::new();
    for (index, item) in list.iter().enumerate() {
        let Some(id) = identity(item) else { continue };
        if seen.contains(&id) {
            causes.push(Cause::duplicate(format!("{path}[{index}]"), &id));
        } else {
            seen.push(id);
        }
    }
}
