//! One event as JSON that no client's line splitter can cut: everything that any of them takes for a
//! line end is escaped.

use std::io;

use api_types::execd::StreamEvent;
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// Compact JSON with U+0085, U+2028 and U+2029 escaped; controls are escaped by `serde_json` itself.
struct LineSafe;

impl Formatter for LineSafe {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        // Two bytes that begin the three: most text has neither, and is written in one piece.
        while let Some(at) = rest.find(['\u{85}', '\u{2028}', '\u{2029}']) {
            let (before, from) = rest.split_at(at);
            writer.write_all(before.as_bytes())?;
            let mut chars = from.chars();
            if let Some(c) = chars.next() {
                write!(writer, "\\u{:04x}", u32::from(c))?;
            }
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

/// Appends one event with its two line feeds.
pub fn encode(event: &StreamEvent, out: &mut Vec<u8>) {
    let before = out.len();
    let written = event.serialize(&mut Serializer::with_formatter(&mut *out, LineSafe));
    if written.is_err() {
        // Cannot happen for this type; half an object would break the whole stream.
        out.truncate(before);
        return;
    }
    out.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use api_types::execd::EventType;

    use super::*;

    #[test]
    fn nothing_in_it_ends_a_line() {
        let text: String = (0..0x3000u32).filter_map(char::from_u32).collect();
        let event = StreamEvent {
            event: EventType::Stdout,
            timestamp: 1,
            text: Some(text.clone()),
            execution_time: None,
            execution_count: None,
            results: None,
            error: None,
        };
        let mut out = Vec::new();
        encode(&event, &mut out);
        let json = std::str::from_utf8(&out).unwrap().strip_suffix("\n\n").unwrap();
        assert!(!json.contains(|c: char| c < ' ' || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}')));
        let back: StreamEvent = serde_json::from_str(json).unwrap();
        assert_eq!(back.text, Some(text));
    }
}
