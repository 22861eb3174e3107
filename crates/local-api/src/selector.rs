//! Label and field selectors.

use serde_json::Value;

use crate::error::{ApiError, Result};
use crate::kinds::{Builtin, Resource};
use crate::object;
use crate::verbs::names;

/// One requirement of a label selector.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Label {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
    Above(String, i64),
    Below(String, i64),
}

/// One requirement of a field selector.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    path: String,
    value: String,
    equal: bool,
}

/// What a list or a watch is narrowed to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector {
    labels: Vec<Label>,
    fields: Vec<Field>,
}

impl Selector {
    /// Reads both selectors of a query.
    pub fn parse(labels: &str, fields: &str, resource: &Resource) -> Result<Self> {
        Ok(Self { labels: parse_labels(labels)?, fields: parse_fields(fields, resource)? })
    }

    /// Whether everything matches.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The same, of the object with this name alone.
    pub fn named(mut self, name: &str) -> Self {
        self.fields.push(Field { path: "metadata.name".into(), value: name.into(), equal: true });
        self
    }

    /// The name that the objects must have, when the selector says so.
    pub fn exact_name(&self) -> Option<&str> {
        self.fields.iter().find(|f| f.equal && f.path == "metadata.name").map(|f| f.value.as_str())
    }

    /// A label and the values of which the objects must have one, when the selector says so.
    pub fn exact_label(&self) -> Option<(&str, &[String])> {
        self.labels.iter().find_map(|requirement| match requirement {
            Label::In(key, values) => Some((key.as_str(), values.as_slice())),
            _ => None,
        })
    }

    /// Whether `object` is selected.
    pub fn matches(&self, object: &Value) -> bool {
        let labels = object::meta(object).get("labels").and_then(Value::as_object);
        let label = |key: &str| labels.and_then(|l| l.get(key)).and_then(Value::as_str);
        self.labels.iter().all(|requirement| match requirement {
            Label::In(key, values) => label(key).is_some_and(|v| values.iter().any(|w| w == v)),
            Label::NotIn(key, values) => label(key).is_none_or(|v| values.iter().all(|w| w != v)),
            Label::Exists(key) => label(key).is_some(),
            Label::Absent(key) => label(key).is_none(),
            Label::Above(key, bound) => label(key).and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v > *bound),
            Label::Below(key, bound) => label(key).and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v < *bound),
        }) && self.fields.iter().all(|field| (field_text(object, &field.path) == field.value) == field.equal)
    }
}

fn field_text(object: &Value, path: &str) -> String {
    match object::at(object, path) {
        None if path == "spec.unschedulable" || path == "spec.hostNetwork" => "false".into(),
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn unparsable(text: &str, why: &str) -> ApiError {
    ApiError::bad_request(format!("unable to parse requirement: {why} in {text:?}"))
}

fn parse_labels(text: &str) -> Result<Vec<Label>> {
    split_outside_parentheses(text)
        .into_iter()
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| {
            let requirement = parse_label(part).ok_or_else(|| unparsable(text, "malformed requirement"))?;
            let (Label::In(key, _)
            | Label::NotIn(key, _)
            | Label::Exists(key)
            | Label::Absent(key)
            | Label::Above(key, _)
            | Label::Below(key, _)) = &requirement;
            if let Some(fault) = names::key_faults(key).into_iter().next() {
                let why = format!("unable to parse requirement: <nil>: Invalid value: {key:?}: {fault}");
                return Err(ApiError::bad_request(why));
            }
            if let Label::In(_, values) | Label::NotIn(_, values) = &requirement
                && let Some((at, wrong)) = values.iter().enumerate().find(|(_, v)| !names::is_label_value(v))
            {
                let rule = names::VALUE_RULE;
                let why = format!("unable to parse requirement: values[{at}][{key}]: Invalid value: {wrong:?}: {rule}");
                return Err(ApiError::bad_request(why));
            }
            Ok(requirement)
        })
        .collect()
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_u32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn parse_label(part: &str) -> Option<Label> {
    if let Some(key) = part.strip_prefix('!') {
        return Some(Label::Absent(key.trim().into()));
    }
    if let Some(open) = part.find('(') {
        let values = part[open + 1..].trim_end().strip_suffix(')')?;
        let values = values.split(',').map(|v| v.trim().to_owned()).collect();
        let mut words = part[..open].split_whitespace();
        let key = words.next()?.to_owned();
        return match (words.next()?, words.next()) {
            ("in", None) => Some(Label::In(key, values)),
            ("notin", None) => Some(Label::NotIn(key, values)),
            _ => None,
        };
    }
    let one = |value: &str| vec![value.trim().to_owned()];
    if let Some((key, value)) = part.split_once("!=") {
        return Some(Label::NotIn(key.trim().into(), one(value)));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Some(Label::In(key.trim().into(), one(value)));
    }
    if let Some((key, bound)) = part.split_once('>') {
        return Some(Label::Above(key.trim().into(), bound.trim().parse().ok()?));
    }
    if let Some((key, bound)) = part.split_once('<') {
        return Some(Label::Below(key.trim().into(), bound.trim().parse().ok()?));
    }
    (!part.contains(char::is_whitespace)).then(|| Label::Exists(part.into()))
}

fn parse_fields(text: &str, resource: &Resource) -> Result<Vec<Field>> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (path, value, equal) = if let Some((path, value)) = part.split_once("!=") {
                (path, value, false)
            } else if let Some((path, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (path, value, true)
            } else {
                return Err(ApiError::bad_request(format!("invalid field selector {part:?}: can't understand it")));
            };
            let Some(path) = supported(path.trim(), resource) else {
                let path = path.trim();
                return Err(ApiError::bad_request(match resource.builtin {
                    // Kinds of which only the names can be selected by say so.
                    Some(Builtin::ConfigMap | Builtin::ServiceAccount | Builtin::Lease | Builtin::Definition) => {
                        format!(
                            "{path:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                        )
                    }
                    _ => format!("field label not supported: {path}"),
                }));
            };
            Ok(Field { path: path.into(), value: value.trim().into(), equal })
        })
        .collect()
}

/// The stored path of a field that may be selected.
fn supported<'a>(path: &'a str, resource: &Resource) -> Option<&'a str> {
    if path == "metadata.name" || path == "metadata.namespace" && resource.namespaced {
        return Some(path);
    }
    let listed: &[&str] = match resource.builtin {
        Some(Builtin::Pod) => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        Some(Builtin::Node) => &["spec.unschedulable"],
        Some(Builtin::Namespace) => &["status.phase"],
        Some(Builtin::Secret) => &["type"],
        Some(Builtin::Service) => &["spec.clusterIP", "spec.type"],
        Some(Builtin::Event) => {
            // `events.k8s.io` names the same stored fields otherwise.
            return match path {
                "regarding.kind" => Some("involvedObject.kind"),
                "regarding.namespace" => Some("involvedObject.namespace"),
                "regarding.name" => Some("involvedObject.name"),
                "regarding.uid" => Some("involvedObject.uid"),
                "regarding.apiVersion" => Some("involvedObject.apiVersion"),
                "regarding.resourceVersion" => Some("involvedObject.resourceVersion"),
                "regarding.fieldPath" => Some("involvedObject.fieldPath"),
                "source" => Some("source.component"),
                "involvedObject.kind"
                | "involvedObject.namespace"
                | "involvedObject.name"
                | "involvedObject.uid"
                | "involvedObject.apiVersion"
                | "involvedObject.resourceVersion"
                | "involvedObject.fieldPath"
                | "reason"
                | "reportingComponent"
                | "type" => Some(path),
                _ => None,
            };
        }
        _ => &[],
    };
    if listed.contains(&path) || resource.selectable.iter().any(|s| s.trim_start_matches('.') == path) {
        return Some(path);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pods() -> Resource {
        crate::kinds::builtins().into_iter().find(|r| r.plural == "pods").expect("pods are built in")
    }

    #[test]
    fn every_form_of_label_requirement() {
        let object = json!({"metadata": {"labels": {"a": "1", "tier": "web"}}});
        for (text, expected) in [
            ("a=1", true),
            ("a==1", true),
            ("a=2", false),
            ("a!=1", false),
            ("b!=1", true),
            ("a", true),
            ("!a", false),
            ("!b", true),
            ("tier in (web, db),a", true),
            ("tier notin (web)", false),
            ("b notin (x)", true),
            ("", true),
        ] {
            let selector = Selector::parse(text, "", &pods()).expect(text);
            assert_eq!(selector.matches(&object), expected, "{text}");
        }
        assert!(Selector::parse("a in (", "", &pods()).is_err());
        assert!(Selector::parse("a b", "", &pods()).is_err());
    }

    #[test]
    fn field_requirements() {
        let object = json!({"metadata": {"name": "x"}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}});
        for (text, expected) in [
            ("metadata.name=x", true),
            ("spec.nodeName!=n", false),
            ("status.phase=Running,spec.nodeName=n", true),
            ("status.phase!=Pending", true),
        ] {
            assert_eq!(Selector::parse("", text, &pods()).expect(text).matches(&object), expected, "{text}");
        }
        let error = Selector::parse("", "spec.image=x", &pods()).expect_err("not a selectable field");
        assert_eq!(error.code, 400);
        assert!(error.message.contains("field label not supported: spec.image"));
    }
}
