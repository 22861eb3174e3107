//! Bytes into lines: `\n`, `\r` and `\r\n` each end one. Every piece comes with the offset in the
//! journal from which its source goes on, so that a stream can be taken up again there.

/// Longest piece of a line in one event. Six times this, the worst case of escaping, stays below the
/// 4 MiB that the Go SDK takes for one line.
const MAX_PIECE: usize = 512 << 10;

/// What a line splitter gives.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The line without its end, or a part of it; empty for an empty line.
    pub text: &'a [u8],
    /// The line goes on in a later piece.
    pub partial: bool,
    /// Offset of the first byte of this source that is not in this piece or one before.
    pub next: u64,
}

/// A line splitter that keeps what has not ended yet.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
    /// Where in the journal what is kept lies: index in it, and offset.
    marks: Vec<(usize, u64)>,
    after_return: bool,
    /// A piece of this very line has been given already: its end is not an empty line.
    continued: bool,
}

impl Lines {
    /// A splitter that goes on after this byte, the last that was given.
    pub fn after(last: u8) -> Self {
        Self { after_return: last == b'\r', continued: !matches!(last, b'\n' | b'\r'), ..Self::default() }
    }

    /// Takes the bytes at an offset of the journal.
    pub fn push(&mut self, start: u64, bytes: &[u8], mut piece: impl FnMut(Piece<'_>)) {
        let mut from = 0;
        if self.after_return && !bytes.is_empty() {
            self.after_return = false;
            from = usize::from(bytes.starts_with(b"\n"));
        }
        while let Some(at) = bytes.get(from..).and_then(|rest| memchr::memchr2(b'\n', b'\r', rest)).map(|at| from + at)
        {
            let mut after = at + 1;
            if bytes.get(at) == Some(&b'\r') {
                match bytes.get(after) {
                    Some(b'\n') => after += 1,
                    Some(_) => {}
                    None => self.after_return = true,
                }
            }
            let text = bytes.get(from..at).unwrap_or_default();
            let next = start + after as u64;
            if self.partial.is_empty() && text.len() <= MAX_PIECE {
                if !(self.continued && text.is_empty()) {
                    piece(Piece { text, partial: false, next });
                }
            } else {
                self.keep(start + from as u64, text, &mut piece);
                if !(self.continued && self.partial.is_empty()) {
                    piece(Piece { text: &self.partial, partial: false, next });
                }
                self.forget();
            }
            self.continued = false;
            from = after;
        }
        let rest = bytes.get(from..).unwrap_or_default();
        self.keep(start + from as u64, rest, &mut piece);
    }

    /// Offset of the first byte that is kept, if any is.
    pub fn kept(&self) -> Option<u64> {
        self.marks.first().map(|(_, offset)| *offset)
    }

    /// Gives what is kept so far, but for a character that is not whole: nothing has come for a while.
    pub fn flush(&mut self, mut piece: impl FnMut(Piece<'_>)) {
        self.give(whole(&self.partial), &mut piece);
    }

    /// Gives the last line, which had no end.
    pub fn finish(&mut self, next: u64, mut piece: impl FnMut(Piece<'_>)) {
        if !self.partial.is_empty() {
            piece(Piece { text: &self.partial, partial: false, next });
        }
        *self = Self::default();
    }

    fn keep(&mut self, start: u64, text: &[u8], piece: &mut impl FnMut(Piece<'_>)) {
        let (mut start, mut rest) = (start, text);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(MAX_PIECE + 1 - self.partial.len()));
            self.marks.push((self.partial.len(), start));
            self.partial.extend_from_slice(now);
            (start, rest) = (start + now.len() as u64, later);
            if self.partial.len() > MAX_PIECE {
                let cut = whole(self.partial.get(..MAX_PIECE).unwrap_or_default());
                self.give(cut, piece);
            }
        }
    }

    /// Gives the first bytes of what is kept.
    fn give(&mut self, count: usize, piece: &mut impl FnMut(Piece<'_>)) {
        if count == 0 {
            return;
        }
        let mark = self.marks.iter().rposition(|(index, _)| *index < count).unwrap_or(0);
        let (index, offset) = self.marks.get(mark).copied().unwrap_or_default();
        let mut next = offset + (count - index) as u64;
        if let Some((later, offset)) = self.marks.get(mark + 1).filter(|(later, _)| *later == count) {
            debug_assert_eq!(*later, count);
            next = *offset;
        }
        piece(Piece { text: self.partial.get(..count).unwrap_or_default(), partial: true, next });
        self.partial.drain(..count);
        let left: Vec<(usize, u64)> = self
            .marks
            .iter()
            .enumerate()
            .filter(|(at, (index, _))| *at == mark || *index >= count)
            .map(|(_, (index, offset))| match index.checked_sub(count) {
                Some(index) => (index, *offset),
                None => (0, next),
            })
            .collect();
        self.marks = if self.partial.is_empty() { Vec::new() } else { left };
        self.marks.dedup_by_key(|(index, _)| *index);
        self.continued = true;
    }

    fn forget(&mut self) {
        self.partial.clear();
        if self.partial.capacity() > 4096 {
            self.partial = Vec::new();
        }
        self.marks.clear();
    }
}

/// How many of the bytes there are before a character that is begun and not whole.
pub fn whole(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let at = bytes.len() - back;
        let Some(byte) = bytes.get(at) else { break };
        let length = match byte {
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            // The middle of a character: its first byte is further back.
            0x80..=0xBF => continue,
            _ => 1,
        };
        return if length > back { at } else { bytes.len() };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces as text; a part of a line ends in `…`, an empty line is `\n`.
    fn split(parts: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut out, mut at) = (Lines::default(), Vec::new(), 0);
        let mut add = |p: Piece<'_>| {
            let text = String::from_utf8_lossy(p.text).into_owned();
            out.push(if p.partial {
                format!("{text}…")
            } else if text.is_empty() {
                "\n".into()
            } else {
                text
            });
        };
        for part in parts {
            lines.push(at, part, &mut add);
            at += part.len() as u64;
        }
        lines.finish(at, &mut add);
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
    fn a_stream_goes_on_where_a_piece_ended() {
        let text = "a\r\n\r\nbé\n\r\rc\n\nd€\nlast".as_bytes();
        let all = |from: usize, pieces: &mut Vec<(Vec<u8>, u64)>| {
            let mut lines = match from {
                0 => Lines::default(),
                from => Lines::after(text[from - 1]),
            };
            let mut add = |p: Piece<'_>| pieces.push((p.text.to_vec(), p.next));
            lines.push(from as u64, &text[from..], &mut add);
            lines.finish(text.len() as u64, &mut add);
        };
        let mut whole = Vec::new();
        all(0, &mut whole);
        for (index, (_, next)) in whole.iter().enumerate() {
            let mut rest = Vec::new();
            all(usize::try_from(*next).unwrap(), &mut rest);
            assert_eq!(rest, whole[index + 1..], "from {next}");
        }
    }

    #[test]
    fn a_flush_never_cuts_a_character_and_is_no_line_of_its_own() {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        let text = "pr€".as_bytes();
        lines.push(10, &text[..3], |_| panic!("nothing has ended"));
        lines.flush(|p| out.push((p.text.to_vec(), p.partial, p.next)));
        assert_eq!((out.as_slice(), lines.kept()), (&[(b"pr".to_vec(), true, 12)][..], Some(12)));
        // The other source wrote in between.
        lines.push(20, &text[3..], |_| panic!("nothing has ended"));
        lines.flush(|p| out.push((p.text.to_vec(), p.partial, p.next)));
        assert_eq!(out[1], ("€".as_bytes().to_vec(), true, 22));
        lines.push(22, b"\nx\n", |p| out.push((p.text.to_vec(), p.partial, p.next)));
        assert_eq!(out[2..], [(b"x".to_vec(), false, 25)]);
    }

    #[test]
    fn a_long_line_comes_in_pieces_of_whole_characters() {
        let line = "€".repeat(MAX_PIECE / 3 + 10);
        let pieces = split(&[line.as_bytes(), b"\nnext\n"]);
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[..2].concat().replace('…', ""), line);
        assert_eq!(pieces[2], "next");
        let exact = split(&[&vec![b'a'; 2 * MAX_PIECE], b"\n"]);
        assert_eq!(exact.iter().map(|p| p.trim_end_matches('…').len()).collect::<Vec<_>>(), [MAX_PIECE, MAX_PIECE]);
    }

    #[test]
    fn whole_characters() {
        for (bytes, want) in [
            (&b"ab"[..], 2),
            ("é".as_bytes(), 2),
            (b"a\xC3", 1),
            (b"a\xE2\x82", 1),
            (b"a\xF0\x9F\x98", 1),
            ("😀".as_bytes(), 4),
            (b"\xFF", 1),
            (b"\x80\x80\x80\x80", 4),
            (b"", 0),
        ] {
            assert_eq!(whole(bytes), want, "{bytes:?}");
        }
    }
}
