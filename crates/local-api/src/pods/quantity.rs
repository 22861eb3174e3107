//! Quantities in pods: checked, and written as Kubernetes writes them.

use api_types::quantity::{amount, split};
use serde_json::Value;

/// The amount, or `None` when it is no quantity.
pub(super) fn parse(value: &Value) -> Option<f64> {
    amount(&text(value)?)
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The form in which Kubernetes writes a quantity out: numbers become text, fractions move to a smaller unit.
pub(super) fn canonical(value: &Value) -> Option<String> {
    let text = text(value)?;
    let (number, suffix) = split(&text)?;
    if !number.contains('.') && !number.starts_with('+') {
        if suffix == "m"
            && let Ok(milli) = number.parse::<i64>()
            && milli % 1000 == 0
        {
            return Some((milli / 1000).to_string());
        }
        return Some(text);
    }
    let amount: f64 = number.parse().ok()?;
    if amount.fract() == 0.0 {
        return Some(format!("{amount}{suffix}"));
    }
    const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    if let Some(at) = BINARY.iter().position(|s| *s == suffix).filter(|at| *at > 0) {
        let smaller = amount * 1024.0;
        if smaller.fract() == 0.0 {
            return Some(format!("{smaller}{}", BINARY[at - 1]));
        }
        return Some(text);
    }
    if suffix.is_empty() {
        return Some(format!("{}m", (amount * 1000.0).ceil()));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn amounts_and_forms() {
        assert_eq!(parse(&json!("100m")), Some(0.1));
        assert_eq!(parse(&json!("1Ki")), Some(1024.0));
        assert_eq!(parse(&json!("2e3")), Some(2000.0));
        for bad in ["", "abc", "1Xi", "m"] {
            assert_eq!(parse(&json!(bad)), None, "{bad}");
        }
        assert_eq!(canonical(&json!(2)).as_deref(), Some("2"));
        assert_eq!(canonical(&json!("0.5")).as_deref(), Some("500m"));
        assert_eq!(canonical(&json!("1000m")).as_deref(), Some("1"));
        assert_eq!(canonical(&json!("1.5Gi")).as_deref(), Some("1536Mi"));
        assert_eq!(canonical(&json!("128Mi")).as_deref(), Some("128Mi"));
    }
}
