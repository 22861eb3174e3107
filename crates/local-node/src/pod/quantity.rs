//! Kubernetes quantities as numbers: `500m`, `1.5`, `256Mi`, `1e3`.

use api_types::quantity::amount;
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
    let value = amount(text.trim())? * scale;
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
