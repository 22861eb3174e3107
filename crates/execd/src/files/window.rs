//! A window of lines out of a file, as its bytes pass by in pieces of any size.

/// Lines from `offset` (the first is 1) on, at most `limit`, joined by `\n` and without a last one;
/// carriage returns before a line's end are dropped.
#[derive(Debug)]
pub struct LineWindow {
    skip: u64,
    left: u64,
    first: bool,
    begun: bool,
    /// Carriage returns that are dropped if the line ends here.
    returns: usize,
}

impl LineWindow {
    /// A window.
    pub fn new(offset: u64, limit: Option<u64>) -> Self {
        Self { skip: offset.saturating_sub(1), left: limit.unwrap_or(u64::MAX), first: true, begun: false, returns: 0 }
    }

    /// Whether no later byte can matter.
    pub fn done(&self) -> bool {
        self.left == 0
    }

    /// Takes the next bytes, and adds to `out` what of them lies in the window.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            if self.done() {
                return;
            }
            let (text, ended) = line.strip_suffix(b"\n").map_or((line, false), |text| (text, true));
            if self.skip > 0 {
                self.skip -= u64::from(ended);
                continue;
            }
            if !self.begun {
                if !self.first {
                    out.push(b'\n');
                }
                (self.begun, self.first) = (true, false);
            }
            let kept = text.len() - text.iter().rev().take_while(|b| **b == b'\r').count();
            if kept > 0 {
                out.resize(out.len() + self.returns, b'\r');
                out.extend_from_slice(text.get(..kept).unwrap_or_default());
                self.returns = 0;
            }
            self.returns += text.len() - kept;
            if ended {
                (self.begun, self.returns) = (false, 0);
                self.left -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(text: &str, offset: u64, limit: Option<u64>) -> String {
        let run = |size: usize| {
            let (mut window, mut out) = (LineWindow::new(offset, limit), Vec::new());
            text.as_bytes().chunks(size).for_each(|piece| window.push(piece, &mut out));
            String::from_utf8(out).unwrap()
        };
        let whole = run(text.len().max(1));
        (1..text.len()).for_each(|size| assert_eq!(run(size), whole, "pieces of {size}"));
        whole
    }

    #[test]
    fn a_table() {
        for (text, offset, limit, want) in [
            ("a\nb\nc\n", 1, None, "a\nb\nc"),
            ("a\nb\nc", 2, Some(1), "b"),
            ("a\r\nb\r\r\nc", 1, Some(2), "a\nb"),
            ("a\rb\nc", 1, None, "a\rb\nc"),
            ("a\n\nb\n", 1, None, "a\n\nb"),
            ("\n\nx", 2, None, "\nx"),
            ("a\nb", 5, None, ""),
            ("", 1, None, ""),
            ("a\nb\n", 2, Some(9), "b"),
        ] {
            assert_eq!(window(text, offset, limit), want, "{text:?} {offset} {limit:?}");
        }
    }
}
