//! The frames of a terminal's WebSocket.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio_tungstenite::tungstenite::Message;

/// What the daemon says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Output, and where it begins when that is said.
    Output(Option<u64>, Bytes),
    /// So many bytes are lost.
    Lost { offset: u64, bytes: u64 },
    /// The replay is over; what comes is live.
    Connected,
    /// The program ended; -1 for a signal.
    Exit(i32),
    /// A refusal.
    Refused { code: String, message: String },
    /// The connection was closed.
    Closed(u16),
    /// Nothing that matters here.
    Ignored,
}

#[derive(Deserialize)]
struct Text {
    #[serde(rename = "type", default)]
    kind: String,
    exit_code: Option<i32>,
    code: Option<String>,
    error: Option<String>,
    offset: Option<u64>,
    bytes: Option<u64>,
}

/// Reads a frame.
pub(super) fn read(message: &Message) -> Heard {
    match message {
        Message::Binary(frame) => match frame.first() {
            Some(1 | 2) => Heard::Output(None, frame.slice(1..)),
            Some(3) if frame.len() >= 9 => {
                let offset = frame[1..9].iter().fold(0, |all, byte| all << 8 | u64::from(*byte));
                Heard::Output(Some(offset), frame.slice(9..))
            }
            _ => Heard::Ignored,
        },
        Message::Text(text) => {
            let Ok(text) = serde_json::from_str::<Text>(text) else { return Heard::Ignored };
            match text.kind.as_str() {
                "connected" => Heard::Connected,
                "exit" => Heard::Exit(text.exit_code.unwrap_or(-1)),
                "gap" => Heard::Lost { offset: text.offset.unwrap_or_default(), bytes: text.bytes.unwrap_or_default() },
                "error" => {
                    Heard::Refused { code: text.code.unwrap_or_default(), message: text.error.unwrap_or_default() }
                }
                _ => Heard::Ignored,
            }
        }
        Message::Close(frame) => Heard::Closed(frame.as_ref().map_or(1005, |frame| frame.code.into())),
        _ => Heard::Ignored,
    }
}

/// Typed bytes.
pub(super) fn stdin(bytes: &[u8]) -> Message {
    let mut frame = Vec::with_capacity(bytes.len() + 1);
    frame.push(0);
    frame.extend_from_slice(bytes);
    Message::Binary(frame.into())
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Say<'a> {
    Resize { cols: u16, rows: u16 },
    Signal { signal: &'a str },
}

fn say(words: &Say<'_>) -> Message {
    // Strings and numbers can always be written.
    Message::Text(serde_json::to_string(words).unwrap_or_default().into())
}

/// The window's size.
pub(super) fn resize(cols: u16, rows: u16) -> Message {
    say(&Say::Resize { cols, rows })
}

/// A signal for the job in the foreground.
pub(super) fn signal(signal: &str) -> Message {
    say(&Say::Signal { signal })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_as_the_daemon_has_them() {
        let binary = |bytes: &'static [u8]| read(&Message::Binary(Bytes::from_static(bytes)));
        assert_eq!(binary(b"\x01ab"), Heard::Output(None, "ab".into()));
        assert_eq!(binary(b"\x03\0\0\0\0\0\0\x01\x02ab"), Heard::Output(Some(258), "ab".into()));
        for nothing in [&b""[..], b"\x03\0", b"\x09x"] {
            assert_eq!(binary(nothing), Heard::Ignored);
        }
        assert_eq!(read(&Message::text(r#"{"type":"exit","exit_code":3}"#)), Heard::Exit(3));
        assert_eq!(read(&Message::text(r#"{"type":"gap","offset":1,"bytes":2}"#)), Heard::Lost { offset: 1, bytes: 2 });
        assert_eq!(resize(80, 24), Message::text(r#"{"type":"resize","cols":80,"rows":24}"#));
        assert_eq!(signal("SIGINT"), Message::text(r#"{"type":"signal","signal":"SIGINT"}"#));
        assert_eq!(stdin(b"ls"), Message::Binary(Bytes::from_static(b"\0ls")));
    }
}
