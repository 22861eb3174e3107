//! The `Range` header, as far as one range goes.

/// What a header asks for, once the size is known.
#[derive(Debug, PartialEq, Eq)]
pub enum Range {
    /// The whole file.
    Whole,
    /// The bytes from the first to the last, both included.
    Part(u64, u64),
    /// Nothing that is there.
    Outside,
    /// The header is none.
    Malformed,
}

/// Reads the header. Of several ranges the first is served.
pub fn parse(header: &str, size: u64) -> Range {
    let Some(list) = header.trim().strip_prefix("bytes=") else { return Range::Malformed };
    let first = list.split(',').next().unwrap_or_default().trim();
    let Some((from, to)) = first.split_once('-') else { return Range::Malformed };
    let number = |text: &str| match text.trim() {
        "" => Some(None),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => Some(Some(digits.parse().unwrap_or(u64::MAX))),
        _ => None,
    };
    match (number(from), number(to)) {
        (Some(None), Some(Some(0))) => Range::Outside,
        (Some(None), Some(Some(_))) if size == 0 => Range::Whole,
        (Some(None), Some(Some(last))) => Range::Part(size - last.min(size), size - 1),
        (Some(Some(from)), Some(Some(to))) if from > to => Range::Malformed,
        (Some(Some(_)), Some(_)) if size == 0 => Range::Whole,
        (Some(Some(from)), Some(_)) if from >= size => Range::Outside,
        (Some(Some(from)), Some(to)) => Range::Part(from, to.unwrap_or(u64::MAX).min(size - 1)),
        _ => Range::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table() {
        for (header, size, want) in [
            ("bytes=0-3", 10, Range::Part(0, 3)),
            ("bytes=5-", 10, Range::Part(5, 9)),
            ("bytes=-3", 10, Range::Part(7, 9)),
            ("bytes=-30", 10, Range::Part(0, 9)),
            ("bytes=2-99999999999999999999999", 10, Range::Part(2, 9)),
            ("bytes=0-0, 4-5", 10, Range::Part(0, 0)),
            ("bytes=10-", 10, Range::Outside),
            ("bytes=-0", 10, Range::Outside),
            ("bytes=0-3", 0, Range::Whole),
            ("bytes=5-3", 10, Range::Malformed),
            ("bytes=-", 10, Range::Malformed),
            ("bytes=a-b", 10, Range::Malformed),
            ("bytes=+1-2", 10, Range::Malformed),
            ("lines=1-2", 10, Range::Malformed),
        ] {
            assert_eq!(parse(header, size), want, "{header} of {size}");
        }
    }
}
