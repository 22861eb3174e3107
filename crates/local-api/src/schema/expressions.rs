//! Rules of definitions in the Common Expression Language (`x-kubernetes-validations`).

use std::sync::Arc;

use cel::{Context, ExecutionError, Program, Value as Cel};
use serde_json::Value;

use super::{Defs, Node, join};
use crate::error::Cause;

/// One compiled rule.
#[derive(Clone)]
pub struct Rule {
    text: String,
    program: Arc<Program>,
    message: String,
    message_program: Option<Arc<Program>>,
    reason: &'static str,
    field: String,
    /// It compares with what was stored, so it is tried on changes alone.
    transition: bool,
    /// `oldSelf` is an optional: the rule is tried on creates as well.
    optional_old: bool,
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Rule").field(&self.text).finish()
    }
}

/// Why a rule is refused: the field of the rule, and what is wrong with it.
pub(super) type RuleFault = (&'static str, String);

/// Compiles one entry of `x-kubernetes-validations`.
pub(super) fn compile(rule: &Value) -> Result<Rule, RuleFault> {
    let text = |key: &str| rule.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let program = |field: &'static str, source: &str| {
        Program::compile(source).map(Arc::new).map_err(|e| (field, format!("compilation failed: {e}")))
    };
    let source = text("rule");
    if source.trim().is_empty() {
        return Err(("rule", "rule is not specified".into()));
    }
    let compiled = program("rule", &source)?;
    let made = text("messageExpression");
    let message_program = if made.is_empty() { None } else { Some(program("messageExpression", &made)?) };
    Ok(Rule {
        transition: compiled.references().has_variable("oldSelf"),
        program: compiled,
        message: text("message").trim().to_owned(),
        message_program,
        reason: match text("reason").as_str() {
            "FieldValueForbidden" => "FieldValueForbidden",
            "FieldValueRequired" => "FieldValueRequired",
            "FieldValueDuplicate" => "FieldValueDuplicate",
            _ => "FieldValueInvalid",
        },
        field: text("fieldPath"),
        optional_old: rule.get("optionalOldSelf").and_then(Value::as_bool).unwrap_or(false),
        text: source,
    })
}

/// Everything that the rules of a schema have against `value`; `old` is what is stored, for a change.
pub fn check(value: &Value, old: Option<&Value>, node: &Node, defs: &Defs) -> Vec<Cause> {
    let mut causes = Vec::new();
    visit(value, old, node, defs, "", &mut causes);
    causes
}

/// Whether a schema has any rule.
pub fn has_rules(node: &Node) -> bool {
    node.rules.as_ref().is_some_and(|r| !r.cel.is_empty())
        || node.properties.values().any(has_rules)
        || node.items.as_deref().is_some_and(has_rules)
        || node.additional.as_deref().is_some_and(has_rules)
}

fn visit(value: &Value, old: Option<&Value>, node: &Node, defs: &Defs, path: &str, causes: &mut Vec<Cause>) {
    let node = node.resolve(defs);
    if value.is_null() {
        return;
    }
    for rule in node.rules.iter().flat_map(|r| &r.cel) {
        if let Some(cause) = evaluate(rule, value, old, path) {
            causes.push(cause);
        }
    }
    match value {
        Value::Object(map) => {
            for (name, field) in &node.properties {
                if let Some(child) = map.get(name) {
                    visit(child, old.and_then(|o| o.get(name)), field, defs, &join(path, name), causes);
                }
            }
            if let Some(additional) = &node.additional {
                for (name, child) in map.iter().filter(|(name, _)| !node.properties.contains_key(*name)) {
                    visit(child, old.and_then(|o| o.get(name)), additional, defs, &join(path, name), causes);
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = &node.items else { return };
            for (index, item) in list.iter().enumerate() {
                visit(item, old_item(item, old, node), items, defs, &format!("{path}[{index}]"), causes);
            }
        }
        _ => {}
    }
}

/// The stored item that corresponds to one of a keyed list; the items of other lists have none.
fn old_item<'a>(item: &Value, old: Option<&'a Value>, node: &Node) -> Option<&'a Value> {
    let super::ListKind::Map(keys) = &node.list else { return None };
    old?.as_array()?.iter().find(|o| keys.iter().all(|k| o.get(k) == item.get(k)))
}

fn evaluate(rule: &Rule, value: &Value, old: Option<&Value>, path: &str) -> Option<Cause> {
    if rule.transition && !rule.optional_old && old.is_none() {
        return None;
    }
    let mut context = Context::default();
    context.add_variable_from_value("self", to_cel(value));
    if rule.transition {
        let stored = old.map(to_cel);
        let stored = if rule.optional_old {
            Cel::Opaque(Arc::new(
                stored.map_or_else(cel::objects::OptionalValue::none, cel::objects::OptionalValue::of),
            ))
        } else {
            stored.unwrap_or(Cel::Null)
        };
        context.add_variable_from_value("oldSelf", stored);
    }
    let field = format!("{path}{}", rule.field);
    let field = match field.trim_start_matches('.') {
        "" => "<nil>".to_owned(),
        field => field.to_owned(),
    };
    let detail = match rule.program.execute(&context) {
        Ok(Cel::Bool(true)) => return None,
        Ok(_) => message(rule, &context),
        // A function of Kubernetes' own that is not known here: the rule is not tried.
        Err(ExecutionError::UndeclaredReference(name)) => {
            tracing::warn!(%name, rule = rule.text, "a rule of a definition is not tried: it calls what is not known here");
            return None;
        }
        Err(error) => {
            let why = error.to_string();
            let cause =
                Cause::invalid(field, &kind_of(value).into(), format!("{why} evaluating rule: {}", named(rule)));
            return Some(cause);
        }
    };
    let word = match rule.reason {
        "FieldValueForbidden" => "Forbidden",
        "FieldValueRequired" => "Required value",
        "FieldValueDuplicate" => "Duplicate value",
        _ => "Invalid value",
    };
    Some(Cause { reason: rule.reason, message: format!("{word}: {detail}"), field })
}

fn named(rule: &Rule) -> &str {
    if rule.message.is_empty() { &rule.text } else { &rule.message }
}

fn message(rule: &Rule, context: &Context<'_, '_>) -> String {
    let made = rule.message_program.as_ref().and_then(|p| match p.execute(context) {
        Ok(Cel::String(text)) if !text.trim().is_empty() && !text.contains('\n') => Some(text.trim().to_owned()),
        _ => None,
    });
    made.unwrap_or_else(|| {
        if rule.message.is_empty() { format!("failed rule: {}", rule.text) } else { rule.message.clone() }
    })
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// JSON's integers are CEL's signed ones, as in Kubernetes.
fn to_cel(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(flag) => Cel::Bool(*flag),
        Value::Number(number) => match number.as_i64() {
            Some(number) => Cel::Int(number),
            None => Cel::Float(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Array(list) => Cel::List(Arc::new(list.iter().map(to_cel).collect())),
        Value::Object(map) => {
            let entries: std::collections::HashMap<String, Cel> =
                map.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), to_cel(v))).collect();
            Cel::Map(entries.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(schema: Value, value: Value, old: Option<Value>) -> Vec<(String, String)> {
        let node = crate::schema::compile(&schema).expect("a good schema");
        check(&value, old.as_ref(), &node, &Defs::default()).into_iter().map(|c| (c.field, c.message)).collect()
    }

    #[test]
    fn rules_hold_or_say_why() {
        let schema = json!({
            "type": "object",
            "x-kubernetes-validations": [
                {"rule": "!has(self.min) || self.min <= self.max", "message": "too small", "fieldPath": ".min"},
                {"rule": "self.max == oldSelf.max", "reason": "FieldValueForbidden"},
            ],
            "properties": {"min": {"type": "integer"}, "max": {"type": "integer"},
                "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-validations": [
                    {"rule": "self.all(t, t.matches('^[a-z]+$'))", "messageExpression": "'of ' + string(size(self))"}]}},
        });
        assert!(told(schema.clone(), json!({"max": 2, "min": 1, "tags": ["a"]}), None).is_empty());
        assert_eq!(
            told(schema.clone(), json!({"max": 2, "min": 3, "tags": ["9"]}), None),
            [("min".into(), "Invalid value: too small".into()), ("tags".into(), "Invalid value: of 1".into())]
        );
        assert_eq!(
            told(schema, json!({"max": 2}), Some(json!({"max": 1}))),
            [("<nil>".into(), "Forbidden: failed rule: self.max == oldSelf.max".into())]
        );
    }

    #[test]
    fn a_rule_that_does_not_parse_is_refused() {
        let fault = compile(&json!({"rule": "self.a >"})).expect_err("no rule");
        assert_eq!(fault.0, "rule");
        assert_eq!(compile(&json!({"rule": " "})).expect_err("no rule").1, "rule is not specified");
    }
}
