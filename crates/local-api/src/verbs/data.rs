//! What a user gets wrong in the kinds that hold little more than data.

use serde_json::Value;

use super::names;
use crate::error::Cause;
use crate::kinds::{Builtin, Resource};
use crate::object;

/// Largest sum of the values of a ConfigMap or Secret.
const DATA_LIMIT: usize = 1024 * 1024;

/// Everything wrong with the data of a ConfigMap or Secret.
pub(crate) fn rules(resource: &Resource, old: Option<&Value>, new: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let fields: &[&str] = if resource.is(Builtin::Secret) { &["data"] } else { &["data", "binaryData"] };
    let mut size = 0;
    for field in fields {
        for (key, value) in new.get(field).and_then(Value::as_object).into_iter().flatten() {
            size += value.as_str().map_or(0, str::len);
            if let Some(rule) = key_rule(key) {
                causes.push(Cause::invalid(format!("{field}[{key}]"), &key.as_str().into(), rule));
            }
            if *field == "data" && new.get("binaryData").is_some_and(|b| b.get(key).is_some()) {
                let why = "duplicate of key present in binaryData";
                causes.push(Cause::invalid(format!("data[{key}]"), &key.as_str().into(), why));
            }
        }
    }
    if resource.is(Builtin::Secret) {
        causes.extend(secret_rules(old, new));
    }
    if size > DATA_LIMIT {
        let field = if resource.is(Builtin::Secret) { "data" } else { "[]" };
        causes.push(Cause::too_long(field, DATA_LIMIT as u64));
    }
    if let Some(old) = old
        && old.get("immutable").and_then(Value::as_bool) == Some(true)
    {
        if new.get("immutable").and_then(Value::as_bool) != Some(true) {
            causes.push(Cause::forbidden("immutable", "field is immutable when `immutable` is set"));
        }
        for field in fields.iter().filter(|f| old.get(**f) != new.get(**f)) {
            causes.push(Cause::forbidden(*field, "field is immutable when `immutable` is set"));
        }
    }
    causes
}

/// What is wrong with a key.
fn key_rule(key: &str) -> Option<&'static str> {
    match key {
        "." => Some("must not be '.'"),
        ".." => Some("must not be '..'"),
        _ if key.starts_with("..") => Some("must not start with '..'"),
        _ if !names::is_config_key(key) => Some(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        ),
        _ => None,
    }
}

/// Keys that the types of Secrets demand.
const SECRET_KEYS: [(&str, &[&str]); 4] = [
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
];

fn secret_rules(old: Option<&Value>, new: &Value) -> Vec<Cause> {
    let kind = object::str_at(new, "type");
    let mut causes = Vec::new();
    if old.is_some_and(|old| object::str_at(old, "type") != kind) {
        causes.push(Cause::invalid("type", &kind.into(), "field is immutable"));
    }
    let wanted = SECRET_KEYS.iter().find(|(name, _)| *name == kind).map_or(&[][..], |(_, keys)| *keys);
    for key in wanted.iter().filter(|key| new.get("data").is_none_or(|data| data.get(**key).is_none())) {
        causes.push(Cause::required(format!("data[{key}]"), ""));
    }
    causes
}

/// Everything wrong with a service's ports.
pub(crate) fn service_rules(service: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let ports = object::at(service, "spec.ports").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let text = |path: &str| object::str_at(service, path);
    if ports.is_empty() && text("spec.clusterIP") != "None" && text("spec.type") != "ExternalName" {
        causes.push(Cause::required("spec.ports", ""));
    }
    for (index, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        if ports.len() > 1 && port.get("name").is_none() {
            causes.push(Cause::required(format!("{path}.name"), ""));
        }
        for field in ["port", "targetPort"] {
            if let Some(number) = port.get(field).and_then(Value::as_i64).filter(|n| !(1..=65_535).contains(n)) {
                let rule = "must be between 1 and 65535, inclusive";
                causes.push(Cause::invalid(format!("{path}.{field}"), &number.into(), rule));
            }
        }
        if let Some(protocol) = port.get("protocol").filter(|p| !["TCP", "UDP", "SCTP"].iter().any(|known| p == known))
        {
            let known = ["SCTP", "TCP", "UDP"].map(String::from);
            causes.push(Cause::unsupported(format!("{path}.protocol"), protocol, &known));
        }
    }
    causes
}

/// Everything wrong with a lease.
pub(crate) fn lease_rules(lease: &Value) -> Vec<Cause> {
    let number = |field: &str| object::at(lease, &format!("spec.{field}")).and_then(Value::as_i64);
    let mut causes = Vec::new();
    if let Some(seconds) = number("leaseDurationSeconds").filter(|n| *n <= 0) {
        causes.push(Cause::invalid("spec.leaseDurationSeconds", &seconds.into(), "must be greater than 0"));
    }
    if let Some(count) = number("leaseTransitions").filter(|n| *n < 0) {
        causes.push(Cause::invalid("spec.leaseTransitions", &count.into(), "must be greater than or equal to 0"));
    }
    causes
}
