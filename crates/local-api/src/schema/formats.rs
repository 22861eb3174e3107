//! Formats of texts in schemas.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether a text has a format. Formats that Kubernetes does not know either are notes for readers.
pub(super) fn format_fits(text: &str, format: &str) -> bool {
    match format {
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        "byte" => {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.decode(text).is_ok()
        }
        "uuid" => uuid::Uuid::try_parse(text).is_ok(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => {
            text.split_once('/').is_some_and(|(address, bits)| match (address.parse::<IpAddr>(), bits.parse::<u8>()) {
                (Ok(IpAddr::V4(_)), Ok(bits)) => bits <= 32,
                (Ok(IpAddr::V6(_)), Ok(bits)) => bits <= 128,
                _ => false,
            })
        }
        "email" => {
            text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !text.contains(' '))
        }
        "uri" => http::Uri::try_from(text).is_ok() && (text.contains("://") || text.starts_with('/')),
        "hostname" => is_hostname(text),
        "duration" => is_duration(text),
        _ => true,
    }
}

/// Kubernetes' rule: labels, and a last one of two characters at least where there are several.
fn is_hostname(text: &str) -> bool {
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    text.len() <= 255 && text.split('.').all(label) && text.rsplit_once('.').is_none_or(|(_, last)| last.len() >= 2)
}

/// Go's durations: numbers with units, one after another.
fn is_duration(text: &str) -> bool {
    let mut rest = text.trim_start_matches(['+', '-']);
    if rest == "0" {
        return true;
    }
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let units = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        let known = ["ns", "us", "\u{b5}s", "ms", "s", "m", "h", "d", "w"].contains(&rest[digits..units].trim());
        if digits == 0 || !known {
            return false;
        }
        parts += 1;
        rest = &rest[units..];
    }
    parts > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_their_formats() {
        for (format, good, bad) in [
            ("cidr", "10.0.0.0/8", "10.0.0.0/40"),
            ("email", "a@b.c", "nobody"),
            ("hostname", "a.example", "a.b"),
            ("duration", "1m3s", "soon"),
            ("uri", "http://x/y", "::"),
            ("ipv4", "1.2.3.4", "x"),
        ] {
            assert!(format_fits(good, format), "{format} {good}");
            assert!(!format_fits(bad, format), "{format} {bad}");
        }
    }
}
