//! Where two answers differ, path by path.

use serde_json::Value;

/// One place where two answers differ.
#[derive(Debug, Clone)]
pub struct Difference {
    /// `suite/case path`, as the table of differences names it.
    pub at: String,
    /// What the embedded API said there.
    pub ours: String,
    /// What kube-apiserver said there.
    pub theirs: String,
}

/// Every place where `ours` differs from `theirs`.
pub fn compare(id: &str, ours: &Value, theirs: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    walk("", Some(ours), Some(theirs), &mut |path, ours, theirs| {
        let text = |v: Option<&Value>| v.map_or_else(|| "(absent)".into(), Value::to_string);
        found.push(Difference { at: format!("{id} {path}"), ours: text(ours), theirs: text(theirs) });
    });
    found
}

fn walk<'a>(
    path: &str,
    ours: Option<&'a Value>,
    theirs: Option<&'a Value>,
    found: &mut impl FnMut(&str, Option<&'a Value>, Option<&'a Value>),
) {
    let below = |step: &str| if path.is_empty() { step.to_owned() } else { format!("{path}.{step}") };
    match (ours, theirs) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            for key in b.keys().chain(a.keys().filter(|k| !b.contains_key(*k))) {
                walk(&below(key), a.get(key), b.get(key), found);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for index in 0..a.len().max(b.len()) {
                walk(&below(&index.to_string()), a.get(index), b.get(index), found);
            }
        }
        (a, b) if a == b => {}
        (a, b) => found(path, a, b),
    }
}
