//! Bytes into lines: `\n`, `\r` and `\r\n` each end one.

/// Longest piece of a line in one event. Six times this, the worst case of escaping, stays below the
/// 4 MiB that the Go SDK takes for one line.
const MAX_PIECE: usize = 512 << 10;

/// A line splitter that keeps what has not ended yet.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
    after_return: bool,
    /// A piece of this very line has been given already: its end is not an empty line.
    continued: bool,
}

impl Lines {
    /// Takes bytes and gives every line that ended, without its end; an empty line is `"\n"`.
    pub fn push(&mut self, bytes: &[u8], mut line: impl FnMut(String)) {
        let mut rest = bytes;
        if self.after_return && !rest.is_empty() {
            self.after_return = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(at) = rest.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            let (text, from) = rest.split_at(at);
            self.extend(text, &mut line);
            if !(self.partial.is_empty() && self.continued) {
                let text = std::mem::take(&mut self.partial);
                line(if text.is_empty() { "\n".to_owned() } else { lossy(text) });
            }
            self.continued = false;
            rest = match from {
                [b'\r', b'\n', after @ ..] | [b'\n', after @ ..] => after,
                [b'\r'] => {
                    self.after_return = true;
                    &[]
                }
                [_, after @ ..] => after,
                [] => &[],
            };
        }
        self.extend(rest, &mut line);
    }

    /// Gives the last line, which had no end.
    pub fn finish(&mut self, mut line: impl FnMut(String)) {
        if !self.partial.is_empty() {
            line(lossy(std::mem::take(&mut self.partial)));
        }
        *self = Self::default();
    }

    fn extend(&mut self, text: &[u8], line: &mut impl FnMut(String)) {
        self.partial.extend_from_slice(text);
        while self.partial.len() > MAX_PIECE {
            let rest = self.partial.split_off(boundary(&self.partial, MAX_PIECE));
            line(lossy(std::mem::replace(&mut self.partial, rest)));
            self.continued = true;
        }
    }
}

/// The last place at or before `max` that does not cut a character.
fn boundary(bytes: &[u8], max: usize) -> usize {
    let starts = |at: usize| bytes.get(at).is_none_or(|b| b & 0xC0 != 0x80);
    (max.saturating_sub(3)..=max).rev().find(|at| starts(*at)).unwrap_or(max)
}

fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(parts: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for part in parts {
            lines.push(part, |l| out.push(l));
        }
        lines.finish(|l| out.push(l));
        out
    }

    #[test]
    fn a_table() {
        for (parts, want) in [
            (&[&b"a\n\nb\n\n\nc\n"[..]][..], &["a", "\n", "b", "\n", "\n", "c"][..]),
            (&[b"x\r\ny\rz"], &["x", "y", "z"]),
            (&[b"x\r", b"\ny"], &["x", "y"]),
            (&[b"x\r", b"", b"\n\ny"], &["x", "\n", "y"]),
            (&[b"10%\r20%\r"], &["10%", "20%"]),
            (&[b"\r\r\n"], &["\n", "\n"]),
            (&[b"h\xC3", b"\xA9\n"], &["hé"]),
            (&[b"\xFF\n"], &["\u{FFFD}"]),
            (&[b""], &[]),
            (&[b"\n"], &["\n"]),
        ] {
            assert_eq!(split(parts), want, "{parts:?}");
        }
    }

    #[test]
    fn how_the_bytes_are_cut_does_not_matter() {
        let text = b"a\r\n\r\nb\n\r\rc\n\nd";
        let whole = split(&[text]);
        for first in 0..text.len() {
            for second in first..text.len() {
                let parts = [&text[..first], &text[first..second], &text[second..]];
                assert_eq!(split(&parts), whole, "{first} {second}");
            }
        }
    }

    #[test]
    fn a_long_line_comes_in_pieces_of_whole_characters() {
        let line = "€".repeat(MAX_PIECE / 3 + 10);
        let pieces = split(&[line.as_bytes(), b"\nnext\n"]);
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[..2].concat(), line);
        assert_eq!(pieces[2], "next");
        let exact = split(&[&vec![b'a'; 2 * MAX_PIECE], b"\n"]);
        assert_eq!(exact.iter().map(String::len).collect::<Vec<_>>(), [MAX_PIECE, MAX_PIECE]);
    }
}
