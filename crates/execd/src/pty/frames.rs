//! The frames of a terminal's WebSocket, as OpenSandbox 1.1.1 has them: binary ones begin with a byte for
//! their channel, the rest is JSON.

use serde::{Deserialize, Serialize};

use crate::journal::Source;

/// Channel of what the client types.
const STDIN: u8 = 0;
/// Channel of standard output, and of a terminal's only stream.
const STDOUT: u8 = 1;
/// Channel of standard error, in pipe mode.
const STDERR: u8 = 2;
/// Channel of what was written before the client came.
const REPLAY: u8 = 3;

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub enum FromClient {
    /// It types.
    Stdin(Vec<u8>),
    /// A signal for the foreground job, by name.
    Signal(String),
    /// The window's columns and rows.
    Resize(u16, u16),
    /// It wants to hear from us.
    Ping,
    /// A JSON frame of a type that there is not.
    Invalid(String),
    /// Nothing that means anything.
    Ignored,
}

#[derive(Deserialize)]
struct Text {
    #[serde(rename = "type")]
    kind: Option<String>,
    data: Option<String>,
    signal: Option<String>,
    cols: Option<u16>,
    rows: Option<u16>,
}

/// Reads a binary frame.
pub fn binary(frame: &[u8]) -> FromClient {
    match frame.split_first() {
        Some((&STDIN, bytes)) if !bytes.is_empty() => FromClient::Stdin(bytes.to_vec()),
        _ => FromClient::Ignored,
    }
}

/// Reads a text frame.
pub fn text(frame: &str) -> FromClient {
    let Ok(frame) = serde_json::from_str::<Text>(frame) else { return FromClient::Ignored };
    match (frame.kind.unwrap_or_default().as_str(), frame.data, frame.signal, frame.cols, frame.rows) {
        ("stdin", Some(data), ..) => FromClient::Stdin(data.into_bytes()),
        ("signal", _, Some(signal), ..) => FromClient::Signal(signal),
        ("resize", _, _, Some(cols), Some(rows)) if cols > 0 && rows > 0 => FromClient::Resize(cols, rows),
        ("stdin" | "signal" | "resize", ..) => FromClient::Ignored,
        ("ping", ..) => FromClient::Ping,
        (other, ..) => FromClient::Invalid(other.to_owned()),
    }
}

/// A frame of output.
pub fn output(source: Source, bytes: &[u8]) -> Vec<u8> {
    let channel = match source {
        Source::Stdout => STDOUT,
        Source::Stderr => STDERR,
    };
    [&[channel], bytes].concat()
}

/// A frame of what was written from an offset on before.
pub fn replay(offset: u64, bytes: &[u8]) -> Vec<u8> {
    [&[REPLAY], &offset.to_be_bytes()[..], bytes].concat()
}

/// What we say in JSON.
#[derive(Debug, Default, Serialize)]
pub struct ToClient<'a> {
    /// `connected`, `pong`, `exit`, `error`, `gap`.
    #[serde(rename = "type")]
    pub kind: &'a str,
    /// The terminal's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<&'a str>,
    /// `pty` or `pipe`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<&'a str>,
    /// Of an exit; -1 for a signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Of an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'a str>,
    /// Of an error, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// First lost byte, of a gap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Lost bytes, of a gap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

impl ToClient<'_> {
    /// As text.
    pub fn encode(&self) -> String {
        // Strings and numbers can always be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_say() {
        assert_eq!(binary(b"\x00ls\n"), FromClient::Stdin(b"ls\n".to_vec()));
        for ignored in [&b""[..], b"\x00", b"\x01x", b"\xFFx"] {
            assert_eq!(binary(ignored), FromClient::Ignored);
        }
        for (frame, want) in [
            (r#"{"type":"stdin","data":"é"}"#, FromClient::Stdin("é".as_bytes().to_vec())),
            (r#"{"type":"signal","signal":"SIGINT"}"#, FromClient::Signal("SIGINT".into())),
            (r#"{"type":"resize","cols":100,"rows":40}"#, FromClient::Resize(100, 40)),
            (r#"{"type":"resize","cols":0,"rows":40}"#, FromClient::Ignored),
            (r#"{"type":"resize","cols":-1,"rows":40}"#, FromClient::Ignored),
            (r#"{"type":"resize"}"#, FromClient::Ignored),
            (r#"{"type":"ping"}"#, FromClient::Ping),
            (r#"{"type":"nope"}"#, FromClient::Invalid("nope".into())),
            (r#"{}"#, FromClient::Invalid(String::new())),
            ("nonsense", FromClient::Ignored),
            ("[]", FromClient::Ignored),
        ] {
            assert_eq!(text(frame), want, "{frame}");
        }
    }

    #[test]
    fn what_we_say() {
        assert_eq!(output(Source::Stderr, b"x"), b"\x02x");
        assert_eq!(replay(258, b"ab"), b"\x03\0\0\0\0\0\0\x01\x02ab");
        let exit = ToClient { kind: "exit", exit_code: Some(-1), ..ToClient::default() };
        assert_eq!(exit.encode(), r#"{"type":"exit","exit_code":-1}"#);
    }
}
