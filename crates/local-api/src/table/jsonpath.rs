//! The part of JSON path that printer columns use: fields, indices, and filters by equality.

use serde_json::Value;

/// The first value at `path`.
pub(super) fn find<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    let mut rest = path.trim();
    let mut here = value;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("['") {
            let (name, after) = after.split_once("']")?;
            here = here.get(name)?;
            rest = after;
        } else if let Some(after) = rest.strip_prefix("[?(@.") {
            let (condition, after) = after.split_once(")]")?;
            let (field, wanted) = condition.split_once("==")?;
            let wanted = wanted.trim().trim_matches(['"', '\'']);
            here = here
                .as_array()?
                .iter()
                .find(|item| find(item, &format!(".{}", field.trim())).is_some_and(|v| v == wanted))?;
            rest = after;
        } else if let Some(after) = rest.strip_prefix('[') {
            let (index, after) = after.split_once(']')?;
            here = if index == "*" { here.get(0)? } else { here.get(index.parse::<usize>().ok()?)? };
            rest = after;
        } else {
            rest = rest.strip_prefix('.').unwrap_or(rest);
            let mut name = String::new();
            let mut chars = rest.char_indices();
            let mut end = rest.len();
            while let Some((at, c)) = chars.next() {
                match c {
                    // A backslash keeps a dot inside a name.
                    '\\' => name.extend(chars.next().map(|(_, c)| c)),
                    '.' | '[' => {
                        end = at;
                        break;
                    }
                    c => name.push(c),
                }
            }
            rest = &rest[end..];
            if !name.is_empty() {
                here = here.get(&name)?;
            }
        }
    }
    Some(here)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_of_columns() {
        let value = json!({"spec": {"a.b": 1, "list": [{"type": "Ready", "status": "True"}]}, "m": {"x/y": "z"}});
        assert_eq!(find(&value, r".spec.a\.b"), Some(&json!(1)));
        assert_eq!(find(&value, ".spec.list[0].type"), Some(&json!("Ready")));
        assert_eq!(find(&value, r#".spec.list[?(@.type=="Ready")].status"#), Some(&json!("True")));
        assert_eq!(find(&value, ".m['x/y']"), Some(&json!("z")));
        assert_eq!(find(&value, ".spec.none"), None);
    }
}
