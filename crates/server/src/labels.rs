//! Kubernetes' rules for names, labels and their values.

/// A DNS subdomain: what names an object.
pub fn is_object_name(name: &str) -> bool {
    name.len() <= 253 && !name.is_empty() && name.split('.').all(is_dns_label_part)
}

/// A DNS label: what names a namespace, a volume or a claim.
pub fn is_dns_label(name: &str) -> bool {
    name.len() <= 63 && is_dns_label_part(name)
}

/// A DNS label of any length: letters, digits and inner dashes.
fn is_dns_label_part(part: &str) -> bool {
    !part.is_empty()
        && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !part.starts_with('-')
        && !part.ends_with('-')
}

/// The name part of a qualified name.
fn is_name_part(part: &str) -> bool {
    (1..=63).contains(&part.len())
        && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && part.starts_with(|c: char| c.is_ascii_alphanumeric())
        && part.ends_with(|c: char| c.is_ascii_alphanumeric())
}

/// Why a text is no label or annotation key.
pub fn key_problem(key: &str) -> Option<&'static str> {
    let name = match key.split_once('/') {
        None => key,
        Some((prefix, name)) if is_object_name(prefix) => name,
        Some(_) => return Some("the part before / is no DNS subdomain"),
    };
    (!is_name_part(name)).then_some(
        "a key is 1 to 63 letters, digits, '-', '_' or '.', begins and ends with a letter or digit, and may have a DNS prefix before one /",
    )
}

/// Why a text is no label value.
pub fn value_problem(value: &str) -> Option<&'static str> {
    (!value.is_empty() && !is_name_part(value))
        .then_some("a value is at most 63 letters, digits, '-', '_' or '.', and begins and ends with a letter or digit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_names() {
        for good in ["a", "agent-pool", "a.b-c.d", "0b1f", &"a".repeat(253)] {
            assert!(is_object_name(good), "{good}");
        }
        for bad in ["", "..", "../secrets", "A", "a_b", "-a", "a-", "a..b", "a/b", "a b", &"a".repeat(254)] {
            assert!(!is_object_name(bad), "{bad}");
        }
    }

    #[test]
    fn labels() {
        for good in ["team", "a.b/c", "A_b.c-9"] {
            assert_eq!(key_problem(good), None, "{good}");
        }
        for bad in ["", "/x", "a b", "x/", "a/b/c", "-a", "a=b", &"k".repeat(64)] {
            assert!(key_problem(bad).is_some(), "{bad}");
        }
        assert_eq!(value_problem(""), None);
        assert_eq!(value_problem("v1.2_x"), None);
        assert!(value_problem("a b").is_some() && value_problem(&"v".repeat(64)).is_some());
    }
}
