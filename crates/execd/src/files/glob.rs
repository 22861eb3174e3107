//! Search patterns: against the base name, or against the path below the root where they have a slash.

use std::path::Path;

use globset::{GlobBuilder, GlobMatcher};

/// A pattern.
pub struct Pattern {
    matcher: GlobMatcher,
    negated: bool,
    whole: bool,
}

impl Pattern {
    /// Reads one; `!(x)` is all that does not match `x`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        let inner = text.strip_prefix("!(").and_then(|t| t.strip_suffix(')'));
        let pattern = inner.unwrap_or(text);
        let glob = GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).build();
        let matcher = glob.map_err(|e| format!("pattern {text:?}: {}", e.kind()))?.compile_matcher();
        Ok(Self { matcher, negated: inner.is_some(), whole: pattern.contains('/') })
    }

    /// Whether an entry matches; `below` is its path below the root of the search.
    pub fn matches(&self, below: &Path) -> bool {
        let name = below.file_name().is_some_and(|name| self.matcher.is_match(name));
        let found = name || (self.whole && self.matcher.is_match(below));
        found != self.negated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table() {
        for (pattern, path, want) in [
            ("**", "a/b.txt", true),
            ("*.py", "a/b.py", true),
            ("*.py", "a/b.pyc", false),
            ("**/*.py", "b.py", true),
            ("src/*.py", "src/b.py", true),
            ("src/*.py", "src/x/b.py", false),
            ("src/**/*.py", "src/x/y/b.py", true),
            ("?.txt", "a.txt", true),
            ("[abc].txt", "b.txt", true),
            ("[!abc].txt", "b.txt", false),
            ("[^abc].txt", "d.txt", true),
            ("[a-z].txt", "q.txt", true),
            ("*.{js,ts}", "x.ts", true),
            ("*.{js,t{s,sx}}", "x.tsx", true),
            ("\\*.txt", "*.txt", true),
            ("\\*.txt", "a.txt", false),
            ("!(*.py)", "a.py", false),
            ("!(*.py)", "a.rs", true),
            ("wow!.txt", "wow!.txt", true),
            ("*", ".hidden", true),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap().matches(Path::new(path)), want, "{pattern} {path}");
        }
        assert!(Pattern::new("[").is_err());
        assert!(Pattern::new("{a").is_err());
    }
}
