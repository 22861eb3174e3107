//! Which names, labels and annotations Kubernetes takes.

use serde_json::Value;

use crate::error::Cause;
use crate::object;

/// What a DNS-1123 subdomain is, in Kubernetes' words.
pub(crate) const SUBDOMAIN_RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
/// What a DNS-1123 label is, in Kubernetes' words.
pub(crate) const LABEL_RULE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED_RULE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
pub(crate) const VALUE_RULE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

fn is_label_text(text: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

/// A DNS-1123 label.
pub(crate) fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_label_text(text)
}

/// A DNS-1123 subdomain.
pub(crate) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label_text)
}

fn is_name_part(text: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// What is wrong with a label's key, in Kubernetes' words.
pub(crate) fn key_faults(key: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let name = match key.split('/').collect::<Vec<_>>().as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                faults.push("prefix part must be non-empty".into());
            } else if !is_subdomain(prefix) {
                faults.push(format!("prefix part {SUBDOMAIN_RULE}"));
            }
            *name
        }
        _ => {
            let rule = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a qualified name {QUALIFIED_RULE} {rule}")];
        }
    };
    if name.is_empty() {
        faults.push("name part must be non-empty".into());
    } else if name.len() > 63 {
        faults.push("name part must be no more than 63 bytes".into());
    }
    if !is_name_part(name) {
        faults.push(format!("name part {QUALIFIED_RULE}"));
    }
    faults
}

/// Finalizers that need no domain.
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "foregroundDeletion", "orphan"];

/// A label's value.
pub(crate) fn is_label_value(value: &str) -> bool {
    value.is_empty() || value.len() <= 63 && is_name_part(value)
}

/// A key of a ConfigMap or Secret.
pub(crate) fn is_config_key(key: &str) -> bool {
    !key.is_empty()
        && key.len() <= 253
        && key != "."
        && !key.starts_with("..")
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Largest sum of all annotations of an object.
const ANNOTATIONS_LIMIT: usize = 256 * 1024;

/// Everything wrong with an object's metadata. `label_names` demands a DNS label for a name, as namespaces have.
pub(crate) fn check_metadata(object: &Value, label_names: bool, namespaced: bool, core: bool) -> Vec<Cause> {
    let mut causes = Vec::new();
    let meta = object::meta(object);
    let name = object::name(object);
    let (fits, rule) = if label_names { (is_label(name), LABEL_RULE) } else { (is_subdomain(name), SUBDOMAIN_RULE) };
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
    } else if !fits {
        let limit = if label_names { 63 } else { 253 };
        if label_names && name.contains('.') {
            causes.push(Cause::invalid("metadata.name", &name.into(), "must not contain dots"));
        } else if name.len() > limit {
            causes.push(Cause::invalid(
                "metadata.name",
                &name.into(),
                format!("must be no more than {limit} characters"),
            ));
        } else {
            causes.push(Cause::invalid("metadata.name", &name.into(), rule));
        }
    }
    if namespaced && !is_label(object::namespace(object)) {
        causes.push(Cause::invalid("metadata.namespace", &object::namespace(object).into(), LABEL_RULE));
    }
    causes.extend(check_labels(meta.get("labels"), "metadata.labels"));
    let mut size = 0;
    for (key, value) in meta.get("annotations").and_then(Value::as_object).into_iter().flatten() {
        size += key.len() + value.as_str().map_or(0, str::len);
        for fault in key_faults(&key.to_lowercase()) {
            causes.push(Cause::invalid("metadata.annotations", &key.as_str().into(), fault));
        }
    }
    if size > ANNOTATIONS_LIMIT {
        causes.push(Cause::too_long("metadata.annotations", ANNOTATIONS_LIMIT as u64));
    }
    for (index, finalizer) in object::finalizers(object).enumerate() {
        for fault in key_faults(finalizer) {
            causes.push(Cause::invalid("metadata.finalizers", &finalizer.into(), fault));
        }
        if !core || finalizer.contains('/') || STANDARD_FINALIZERS.contains(&finalizer) {
            continue;
        }
        let path = format!("metadata.finalizers[{index}]");
        let rule = "name is neither a standard finalizer name nor is it fully qualified";
        causes.push(Cause::invalid(path, &finalizer.into(), rule));
    }
    let references = meta.get("ownerReferences").and_then(Value::as_array).into_iter().flatten();
    let mut controllers: Vec<String> = Vec::new();
    for reference in references {
        for field in ["apiVersion", "kind", "name", "uid"] {
            let text = reference.get(field).and_then(Value::as_str).unwrap_or_default();
            if text.is_empty() {
                let detail = if field == "apiVersion" { "version must not be empty" } else { "must not be empty" };
                causes.push(Cause::invalid(format!("metadata.ownerReferences.{field}"), &"".into(), detail));
            }
        }
        let text = |field: &str| reference.get(field).and_then(Value::as_str).unwrap_or_default();
        if text("apiVersion") == "v1" && text("kind") == "Event" {
            let rule = "/v1, Kind=Event is disallowed from being an owner";
            causes.push(Cause::invalid("metadata.ownerReferences", reference, rule));
        }
        if reference.get("controller").and_then(Value::as_bool) == Some(true) {
            controllers.push(format!("{}/{}", text("kind"), text("name")));
        }
    }
    if let [first, second, ..] = controllers.as_slice() {
        let list = meta.get("ownerReferences").cloned().unwrap_or_default();
        let rule = format!(
            "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {second}"
        );
        causes.push(Cause::invalid("metadata.ownerReferences", &list, rule));
    }
    causes
}

/// Everything wrong with a set of labels.
pub(crate) fn check_labels(labels: Option<&Value>, path: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (key, value) in labels.and_then(Value::as_object).into_iter().flatten() {
        for fault in key_faults(key) {
            causes.push(Cause::invalid(path, &key.as_str().into(), fault));
        }
        let text = value.as_str().unwrap_or_default();
        if text.len() > 63 {
            causes.push(Cause::invalid(path, value, "must be no more than 63 bytes"));
        } else if !is_label_value(text) {
            causes.push(Cause::invalid(path, value, VALUE_RULE));
        }
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels() {
        for good in ["a", "a-b", "a.b", "0", "agent-pool"] {
            assert!(is_subdomain(good), "{good}");
        }
        for bad in ["", "A", "-a", "a-", "a..b", "a_b", ".a"] {
            assert!(!is_subdomain(bad), "{bad}");
        }
        for good in ["opensandbox.io/id", "app", "A_b.c"] {
            assert!(key_faults(good).is_empty(), "{good}");
        }
        for bad in ["", "a/b/c", "-a", "A_B/c", "/a"] {
            assert!(!key_faults(bad).is_empty(), "{bad}");
        }
        assert!(is_label_value("") && is_label_value("v1.2_3") && !is_label_value("a b") && !is_label_value("-"));
    }
}
