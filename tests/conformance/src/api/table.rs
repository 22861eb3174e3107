//! The table of differences that are meant: each with its reason, none unused.

use std::path::Path;

use serde::Deserialize;

use super::Difference;

/// One reason and the places it explains.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Why the embedded API answers otherwise.
    why: String,
    /// `suite/case path`; `*` stands for anything.
    at: Vec<String>,
}

/// The table.
#[derive(Debug, Clone, Default)]
pub struct Table(Vec<Entry>);

impl Table {
    /// Reads the table.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        Ok(Self(serde_saphyr::from_str(&std::fs::read_to_string(path)?)?))
    }

    /// Parts the differences: those that no entry explains, and the entries that explain none (any more).
    pub fn judge(&self, differences: Vec<Difference>, whole: bool) -> (Vec<Difference>, Vec<String>) {
        let patterns: Vec<&str> = self.0.iter().flat_map(|e| e.at.iter().map(String::as_str)).collect();
        let mut used = vec![false; patterns.len()];
        let mut unexpected = Vec::new();
        for difference in differences {
            let mut explained = false;
            for (index, pattern) in patterns.iter().enumerate() {
                if matches(pattern, &difference.at) {
                    used[index] = true;
                    explained = true;
                }
            }
            if !explained {
                unexpected.push(difference);
            }
        }
        let vanished = self
            .0
            .iter()
            .flat_map(|e| e.at.iter().map(move |at| format!("{at} ({})", e.why)))
            .zip(used)
            .filter(|(_, used)| whole && !used)
            .map(|(text, _)| text)
            .collect();
        (unexpected, vanished)
    }
}

/// Whether `pattern`, in which `*` stands for anything, is the whole of `text`.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(first) = parts.next() else { return text.is_empty() };
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        assert!(matches("a/b c", "a/b c") && matches("a/* c.*", "a/b c.d") && matches("*", "x"));
        assert!(!matches("a/b", "a/b c") && !matches("a*c", "a-b") && !matches("a*b*b", "ab"));
    }
}
