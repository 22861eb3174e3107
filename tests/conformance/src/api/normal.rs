//! Takes out of an answer what differs from run to run: identities, versions, times.

use std::collections::BTreeMap;

use serde_json::Value;

/// Fields whose text is of the moment.
const MOMENTARY: [&str; 16] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "time",
    "lastTransitionTime",
    "continue",
    "buildDate",
    "gitCommit",
    "gitVersion",
    "goVersion",
    "compiler",
    "platform",
    "serverAddress",
    "hash",
    "emulationMinor",
];

/// The answer without what is of the moment; `saved` are variables whose values may stand in texts.
pub(super) fn normal(mut value: Value, saved: &BTreeMap<String, String>) -> Value {
    walk(&mut value, saved);
    value
}

fn walk(value: &mut Value, saved: &BTreeMap<String, String>) {
    match value {
        Value::Object(map) => {
            let generated = map.get("generateName").and_then(Value::as_str).map(str::to_owned);
            if let (Some(prefix), Some(Value::String(name))) = (generated, map.get_mut("name"))
                && name.starts_with(&prefix)
            {
                *name = format!("{prefix}*{}", name.len() - prefix.len());
            }
            for (key, child) in map.iter_mut() {
                match child {
                    Value::String(text) if MOMENTARY.contains(&key.as_str()) && !text.is_empty() => *text = "*".into(),
                    // The name of a field set may hold a version or a UID.
                    _ => walk(child, saved),
                }
            }
            // Which of two managers of one second comes first depends on when the second began.
            if let Some(Value::Array(managers)) = map.get_mut("managedFields") {
                managers.sort_by_key(|m| {
                    ["operation", "manager", "subresource", "apiVersion"].map(|k| m.get(k).map(Value::to_string))
                });
            }
            // Resources are told in the order in which their definitions came.
            if let Some(Value::Array(resources)) = map.get_mut("resources") {
                resources.sort_by_key(|r| r.get("name").map(Value::to_string));
            }
            // The order in which faults are found is not promised.
            if let Some(Value::Array(causes)) = map.get_mut("causes") {
                causes.sort_by_key(Value::to_string);
            }
            let keys: Vec<String> = map.keys().filter(|k| has_uid(k)).cloned().collect();
            for key in keys {
                if let Some(child) = map.remove(&key) {
                    map.insert(text(&key, saved), child);
                }
            }
            map.sort_keys();
        }
        Value::Array(list) => list.iter_mut().for_each(|v| walk(v, saved)),
        Value::String(found) => *found = text(found, saved),
        _ => {}
    }
}

fn text(found: &str, saved: &BTreeMap<String, String>) -> String {
    let mut out = found.to_owned();
    for (name, value) in saved.iter().filter(|(n, v)| *n == "NS" || *n == "TAG" || is_uid(v)) {
        out = out.replace(value, &format!("${name}"));
    }
    out = without_uids(&out);
    if out.to_lowercase().replace(' ', "").contains("resourceversion") {
        out = without_numbers(&out);
    }
    without_times(&out)
}

fn is_uid(word: &str) -> bool {
    word.len() == 36
        && word.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
        && word.bytes().filter(|b| *b == b'-').count() == 4
}

fn has_uid(text: &str) -> bool {
    text.split(|c: char| !(c.is_ascii_hexdigit() || c == '-')).any(is_uid)
}

fn without_uids(text: &str) -> String {
    let mut out = text.to_owned();
    for word in text.split(|c: char| !(c.is_ascii_hexdigit() || c == '-')).filter(|w| is_uid(w)) {
        out = out.replace(word, "*");
    }
    out
}

fn without_numbers(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if !c.is_ascii_digit() {
            out.push(c);
        } else if !out.ends_with('#') {
            out.push('#');
        }
    }
    out
}

/// `2026-11-24T17:15:54Z` and ages such as `3s` in the cells of tables.
fn without_times(text: &str) -> String {
    let bytes = text.as_bytes();
    let age = text.len() >= 2
        && text.len() <= 6
        && bytes[0].is_ascii_digit()
        && bytes.iter().all(|b| b.is_ascii_digit() || matches!(b, b's' | b'm'))
        && text.ends_with('s');
    if age {
        return "<age>".into();
    }
    let time = text.len() >= 20
        && text.len() <= 30
        && text.ends_with('Z')
        && bytes[4] == b'-'
        && bytes.get(10) == Some(&b'T')
        && text.starts_with("202");
    if time { "*".into() } else { text.to_owned() }
}
