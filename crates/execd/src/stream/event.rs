//! Events as JSON that no client's line splitter can cut: everything that any of them takes for a
//! line end is escaped.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use super::Cursor;

/// How events are put into the stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Framing {
    /// Each a JSON object and two line feeds: what every published SDK reads.
    #[default]
    Bare,
    /// Server-sent events with `id` and `data`, for browsers and standard readers.
    Sse,
}

/// An event, as far as it has members.
#[derive(Debug, Default, Serialize)]
pub struct Event<'a> {
    /// Type.
    #[serde(rename = "type")]
    pub kind: &'a str,
    /// Payload of init, output and ping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<&'a str>,
    /// The session, on the init of a run in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<&'a str>,
    /// Milliseconds of the whole run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_time: Option<u64>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<EventError<'a>>,
    /// Bytes that were lost, on a gap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Offset of the first lost byte, on a gap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Unix milliseconds.
    pub timestamp: i64,
    /// Where a reader that has this event goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Why an execution failed.
#[derive(Debug, Serialize)]
pub struct EventError<'a> {
    /// Name.
    pub ename: &'a str,
    /// Decimal exit code.
    pub evalue: String,
    /// Details.
    pub traceback: Vec<String>,
}

/// Compact JSON with U+0085, U+2028 and U+2029 escaped; controls are escaped by `serde_json` itself.
struct LineSafe;

impl Formatter for LineSafe {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let (bytes, mut from, mut at) = (fragment.as_bytes(), 0, 0);
        // The first bytes of the three: most text has neither, and is written in one piece.
        while let Some(found) = bytes.get(at..).and_then(|rest| memchr::memchr2(0xC2, 0xE2, rest)) {
            at += found;
            let rest = bytes.get(at..).unwrap_or_default();
            let (escaped, length) = match rest {
                [0xC2, 0x85, ..] => ("\\u0085", 2),
                [0xE2, 0x80, 0xA8, ..] => ("\\u2028", 3),
                [0xE2, 0x80, 0xA9, ..] => ("\\u2029", 3),
                _ => {
                    at += 1;
                    continue;
                }
            };
            writer.write_all(bytes.get(from..at).unwrap_or_default())?;
            writer.write_all(escaped.as_bytes())?;
            at += length;
            from = at;
        }
        writer.write_all(bytes.get(from..).unwrap_or_default())
    }
}

/// Appends one event.
pub fn encode(event: &Event<'_>, framing: Framing, out: &mut Vec<u8>) {
    let before = out.len();
    if framing == Framing::Sse {
        if let Some(cursor) = &event.cursor {
            out.extend_from_slice(format!("id: {cursor}\n").as_bytes());
        }
        out.extend_from_slice(b"data: ");
    }
    if event.serialize(&mut Serializer::with_formatter(&mut *out, LineSafe)).is_err() {
        // Cannot happen for this type; half an object would break the whole stream.
        out.truncate(before);
        return;
    }
    out.extend_from_slice(b"\n\n");
}

/// One piece of output; the hot path, written without a serializer but for the text.
pub struct Output<'a> {
    /// `stdout` or `stderr`.
    pub kind: &'static str,
    /// The bytes.
    pub bytes: &'a [u8],
    /// As base64 of the bytes as they are.
    pub base64: bool,
    /// The line goes on in the next event.
    pub partial: bool,
    /// Where a reader goes on.
    pub cursor: Cursor,
    /// Unix milliseconds.
    pub timestamp: i64,
}

impl Output<'_> {
    /// Appends it.
    pub fn encode(&self, framing: Framing, out: &mut Vec<u8>) {
        out.reserve(self.bytes.len() + 128);
        if framing == Framing::Sse {
            out.extend_from_slice(b"id: ");
            self.cursor.write(out);
            out.extend_from_slice(b"\ndata: ");
        }
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(self.kind.as_bytes());
        out.extend_from_slice(b"\",\"text\":");
        if self.base64 {
            out.push(b'"');
            let at = out.len();
            out.resize(at + self.bytes.len().div_ceil(3) * 4, 0);
            let written = STANDARD.encode_slice(self.bytes, out.get_mut(at..).unwrap_or_default()).unwrap_or(0);
            out.truncate(at + written);
            out.extend_from_slice(b"\",\"encoding\":\"base64\"");
        } else {
            // An empty text would be left out by some and missed by others.
            let bytes = if self.bytes.is_empty() { b"\n" } else { self.bytes };
            let text = String::from_utf8_lossy(bytes);
            let before = out.len();
            if text.serialize(&mut Serializer::with_formatter(&mut *out, LineSafe)).is_err() {
                out.truncate(before);
                out.extend_from_slice(b"\"\"");
            }
        }
        if self.partial {
            out.extend_from_slice(b",\"partial\":true");
        }
        out.extend_from_slice(b",\"timestamp\":");
        out.extend_from_slice(self.timestamp.to_string().as_bytes());
        out.extend_from_slice(b",\"cursor\":\"");
        self.cursor.write(out);
        out.extend_from_slice(b"\"}\n\n");
    }
}

#[cfg(test)]
mod tests {
    use api_types::execd::{EventType, StreamEvent};

    use super::*;

    fn output(bytes: &[u8], framing: Framing, base64: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let cursor = Cursor { stdout: 3, stderr: 5 };
        Output { kind: "stdout", bytes, base64, partial: false, cursor, timestamp: 1 }.encode(framing, &mut out);
        out
    }

    #[test]
    fn nothing_in_it_ends_a_line() {
        let text: String = (0..0x3000u32).filter_map(char::from_u32).collect();
        let out = output(text.as_bytes(), Framing::Bare, false);
        let json = std::str::from_utf8(&out).unwrap().strip_suffix("\n\n").unwrap();
        assert!(!json.contains(|c: char| c < ' ' || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}')));
        let back: StreamEvent = serde_json::from_str(json).unwrap();
        assert_eq!((back.event, back.text), (EventType::Stdout, Some(text)));
    }

    #[test]
    fn binary_survives_as_base64() {
        let bytes: Vec<u8> = (0..=255).collect();
        let out = output(&bytes, Framing::Bare, true);
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&json["encoding"], &json["cursor"]), (&"base64".into(), &"3,5".into()));
        assert_eq!(STANDARD.decode(json["text"].as_str().unwrap()).unwrap(), bytes);
    }

    #[test]
    fn the_standard_framing_has_ids() {
        let out = String::from_utf8(output(b"x", Framing::Sse, false)).unwrap();
        assert!(out.starts_with("id: 3,5\ndata: {\"type\":\"stdout\",\"text\":\"x\"") && out.ends_with("}\n\n"));
    }
}
