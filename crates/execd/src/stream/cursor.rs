//! A place in an execution's output: for each of its two streams the offset in the journal from which
//! on nothing was delivered. Mostly one number, two while one stream has a line that has not ended.

use std::fmt;

use crate::journal::Source;

/// See the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Of standard output.
    pub stdout: u64,
    /// Of standard error.
    pub stderr: u64,
}

impl Cursor {
    /// Both streams from one offset.
    pub fn at(offset: u64) -> Self {
        Self { stdout: offset, stderr: offset }
    }

    /// Reads `N` or `N,M`.
    pub fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| text.trim().parse::<u64>().ok().filter(|n| *n <= i64::MAX.cast_unsigned());
        match text.split_once(',') {
            None => number(text).map(Self::at),
            Some((stdout, stderr)) => Some(Self { stdout: number(stdout)?, stderr: number(stderr)? }),
        }
    }

    /// Offset of one stream.
    pub fn of(self, source: Source) -> u64 {
        match source {
            Source::Stdout => self.stdout,
            Source::Stderr => self.stderr,
        }
    }

    /// The first offset that matters.
    pub fn first(self) -> u64 {
        self.stdout.min(self.stderr)
    }

    /// The same, or where a stream began later, that.
    pub fn not_before(self, from: Self) -> Self {
        Self { stdout: self.stdout.max(from.stdout), stderr: self.stderr.max(from.stderr) }
    }

    /// Appends it as text.
    pub fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.to_string().as_bytes());
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.stdout == self.stderr {
            write!(f, "{}", self.stdout)
        } else {
            write!(f, "{},{}", self.stdout, self.stderr)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for text in ["0", "17", "3,9", "9,3"] {
            assert_eq!(Cursor::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "-1", "1,", ",1", "1,2,3", "x", "99999999999999999999"] {
            assert_eq!(Cursor::parse(text), None, "{text}");
        }
    }
}
