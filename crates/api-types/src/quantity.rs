//! Kubernetes' quantities: `100m`, `1.5Gi`, `2e3`.

/// The amount in whole units, or `None` when the text is no quantity.
pub fn amount(text: &str) -> Option<f64> {
    let (number, suffix) = split(text)?;
    let number: f64 = number.parse().ok()?;
    Some(number * factor(suffix)?)
}

/// Number, with its sign, and suffix; `None` when the text is no quantity.
pub fn split(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    (number.bytes().any(|b| b.is_ascii_digit())).then_some((number, suffix))
}

fn factor(suffix: &str) -> Option<f64> {
    Some(match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024_f64.powi(4),
        "Pi" => 1024_f64.powi(5),
        "Ei" => 1024_f64.powi(6),
        exponent => {
            let digits = exponent.strip_prefix(['e', 'E'])?;
            10_f64.powi(digits.parse().ok()?)
        }
    })
}
