//! Kubernetes quantities as numbers: `500m`, `1.5`, `256Mi`, `1e3`.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The quantity in thousandths, rounded up; `None` when it is none.
pub fn milli(quantity: &Quantity) -> Option<i64> {
    scaled(&quantity.0, 1000.0)
}

/// The quantity in whole units, rounded up; `None` when it is none.
pub fn units(quantity: &Quantity) -> Option<i64> {
    scaled(&quantity.0, 1.0)
}

fn scaled(text: &str, scale: f64) -> Option<i64> {
    let text = text.trim();
    let split = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let factor = match suffix {
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
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        exponent => 10f64.powi(exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    let value = number.parse::<f64>().ok()? * factor * scale;
    // A hair below a whole number is what a decimal fraction looks like in binary.
    let value = if (value - value.round()).abs() < 1e-6 { value.round() } else { value.ceil() };
    (value.is_finite() && value.abs() < 9e18).then_some(value as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_mean_what_kubernetes_says() {
        let cases = [
            ("500m", Some(500), Some(1)),
            ("0.1", Some(100), Some(1)),
            ("2", Some(2000), Some(2)),
            ("256Mi", Some(268_435_456_000), Some(268_435_456)),
            ("1e3", Some(1_000_000), Some(1000)),
            ("1E", None, Some(1_000_000_000_000_000_000)),
            ("128M", Some(128_000_000_000), Some(128_000_000)),
            ("", None, None),
            ("ten", None, None),
        ];
        for (text, thousandths, whole) in cases {
            let quantity = Quantity(text.to_owned());
            assert_eq!((milli(&quantity), units(&quantity)), (thousandths, whole), "{text}");
        }
    }
}
