//! Event streams of the daemon, from bytes to events.
//!
//! Servers send either bare JSON objects with two line feeds between them or server-sent events;
//! both are taken, also mixed, and cut at any byte.

use std::marker::PhantomData;

use api_types::ErrorBody;
use serde::de::DeserializeOwned;

/// Most bytes of one event. Daemons keep theirs below 4 MiB.
const MAX_EVENT: usize = 16 << 20;

/// Turns the bytes of a stream into events.
#[derive(Debug)]
pub(crate) struct EventParser<T> {
    /// The line that has begun.
    line: Vec<u8>,
    /// The `data:` lines of the event that has begun.
    data: Option<Vec<u8>>,
    /// A line ended with a carriage return: a line feed that follows belongs to it.
    after_cr: bool,
    event: PhantomData<fn() -> T>,
}

impl<T> Default for EventParser<T> {
    fn default() -> Self {
        Self { line: Vec::new(), data: None, after_cr: false, event: PhantomData }
    }
}

/// Why a stream cannot be read on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseError {
    /// One event is larger than any daemon sends.
    #[error("an event has more than {MAX_EVENT} bytes")]
    TooLarge,
    /// The daemon failed after the stream had begun.
    #[error("{} [{}]", .0.message, .0.code)]
    Refused(ErrorBody),
}

impl<T: DeserializeOwned> EventParser<T> {
    /// Takes bytes, cut anywhere, and appends the events that are complete, also those before an
    /// error. What is no event is passed over.
    pub(crate) fn push(&mut self, bytes: &[u8], events: &mut Vec<T>) -> Result<(), ParseError> {
        let mut rest = bytes;
        if self.after_cr && !rest.is_empty() {
            self.after_cr = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(end) = rest.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            self.grow(&rest[..end])?;
            let terminator = rest[end];
            rest = &rest[end + 1..];
            if terminator == b'\r' {
                self.after_cr = rest.is_empty();
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            }
            events.extend(self.end_line()?);
        }
        self.grow(rest)
    }

    /// Ends the stream: appends the last event, if its terminator was missing.
    pub(crate) fn finish(&mut self, events: &mut Vec<T>) -> Result<(), ParseError> {
        events.extend(self.end_line()?);
        events.extend(self.end_event()?);
        Ok(())
    }

    fn grow(&mut self, bytes: &[u8]) -> Result<(), ParseError> {
        let held = self.line.len() + self.data.as_ref().map_or(0, Vec::len);
        if held + bytes.len() > MAX_EVENT {
            return Err(ParseError::TooLarge);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self) -> Result<Option<T>, ParseError> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return self.end_event();
        }
        if line.trim_ascii_start().starts_with(b"{") {
            return decode(&line);
        }
        if let Some(value) = line.strip_prefix(b"data:") {
            let value = value.strip_prefix(b" ").unwrap_or(value);
            match &mut self.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => self.data = Some(value.to_vec()),
            }
        }
        // Comments, `event:`, `id:` and `retry:` say nothing that the object does not.
        Ok(None)
    }

    fn end_event(&mut self) -> Result<Option<T>, ParseError> {
        self.data.take().map_or(Ok(None), |data| decode(&data))
    }
}

fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<Option<T>, ParseError> {
    if let Ok(event) = serde_json::from_slice(json) {
        return Ok(Some(event));
    }
    match serde_json::from_slice::<ErrorBody>(json) {
        Ok(body) => Err(ParseError::Refused(body)),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use api_types::execd::{EventType, StreamEvent};
    use proptest::prelude::*;

    use super::*;

    const BARE: &[u8] = b"{\"type\":\"init\",\"timestamp\":1,\"text\":\"id\"}\n\n{\"type\":\"stdout\",\"timestamp\":2,\"text\":\"\xc3\xa4\"}\n\n{\"type\":\"execution_complete\",\"timestamp\":3,\"execution_time\":4}";
    const SSE: &[u8] = b": hello\r\nevent: x\r\ndata: {\"type\":\"init\",\"timestamp\":1,\"text\":\"id\"}\r\n\r\ndata:{\"type\":\"stdout\",\r\ndata: \"timestamp\":2,\"text\":\"\xc3\xa4\"}\r\n\r\ndata: {\"type\":\"execution_complete\",\"timestamp\":3,\"execution_time\":4}";

    fn parse(parts: &[&[u8]]) -> Vec<StreamEvent> {
        let (mut parser, mut events) = (EventParser::default(), Vec::new());
        for part in parts {
            parser.push(part, &mut events).unwrap();
        }
        parser.finish(&mut events).unwrap();
        events
    }

    /// The first error when `chunk` is pushed again and again.
    fn flood(chunk: &[u8]) -> Option<ParseError> {
        let (mut parser, mut events) = (EventParser::<StreamEvent>::default(), Vec::new());
        (0..20).find_map(|_| parser.push(chunk, &mut events).err())
    }

    #[test]
    fn both_framings_cut_at_every_byte() {
        let whole = parse(&[BARE]);
        assert_eq!(
            whole.iter().map(|e| e.event).collect::<Vec<_>>(),
            [EventType::Init, EventType::Stdout, EventType::ExecutionComplete]
        );
        assert_eq!(whole[1].text.as_deref(), Some("ä"));
        for stream in [BARE, SSE] {
            for cut in 0..=stream.len() {
                assert_eq!(parse(&[&stream[..cut], &stream[cut..]]), whole, "cut at {cut}");
            }
            let single: Vec<_> = stream.chunks(1).collect();
            assert_eq!(parse(&single), whole);
        }
    }

    #[test]
    fn what_is_no_event_is_passed_over_and_a_refusal_is_not() {
        assert!(parse(&[b"nonsense\n\n{\"a\":1}\n\n{broken\n\n"]).is_empty());
        assert_eq!(parse(&[b"{\"type\":\"newer\",\"timestamp\":1}\n\n"])[0].event, EventType::Unknown);
        let mut events = Vec::new();
        let stream = b"{\"type\":\"init\",\"timestamp\":1}\n\n{\"code\":\"RUNTIME_ERROR\",\"message\":\"busy\"}\n";
        let refused = EventParser::<StreamEvent>::default().push(stream, &mut events);
        assert!(matches!(refused, Err(ParseError::Refused(body)) if body.code == "RUNTIME_ERROR"));
        assert_eq!(events.len(), 1, "what came before the refusal is kept");
    }

    #[test]
    fn an_endless_event_is_stopped() {
        let chunk = vec![b'a'; 1 << 20];
        assert_eq!(flood(&chunk), Some(ParseError::TooLarge));
        assert_eq!(flood(&[b"data: ", chunk.as_slice(), b"\n"].concat()), Some(ParseError::TooLarge));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_however_it_is_cut(
            texts in proptest::collection::vec((any::<bool>(), any::<bool>(), ".{0,40}"), 0..12),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let mut stream = Vec::new();
            let mut written = Vec::new();
            for (sse, crlf, text) in texts {
                let event = StreamEvent {
                    event: EventType::Stdout, timestamp: 7, text: Some(text), execution_time: None,
                    execution_count: None, results: None, error: None, cursor: None, partial: false,
                    encoding: None, bytes: None, offset: None,
                };
                let end = if crlf && sse { "\r\n\r\n" } else { "\n\n" };
                let prefix = if sse { "data: " } else { "" };
                stream.extend_from_slice(format!("{prefix}{}{end}", serde_json::to_string(&event).unwrap()).as_bytes());
                written.push(event);
            }
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let parts: Vec<_> = cuts.windows(2).map(|w| &stream[w[0]..w[1]]).collect();
            prop_assert_eq!(parse(&parts), written);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (mut parser, mut events) = (EventParser::<StreamEvent>::default(), Vec::new());
            let _ = parser.push(&bytes, &mut events);
            let _ = parser.finish(&mut events);
        }
    }
}
