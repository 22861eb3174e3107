//! A sandbox's state as it changes.

use std::collections::VecDeque;
use std::time::Duration;

use api_types::lifecycle::Sandbox as SandboxInfo;
use futures::{Stream, stream};
use reqwest::Method;

use crate::{
    Client, Error, Result,
    client::segment,
    transport::{Answer, Call, Retry},
};

/// Most bytes of one event: a sandbox with its labels is a few KiB.
const MAX_EVENT: usize = 1 << 20;
/// Pause before a stream that broke is opened again.
const PAUSE: Duration = Duration::from_millis(500);

/// What a stream told.
#[derive(Debug, PartialEq)]
enum Told {
    State(Box<SandboxInfo>),
    Gone,
}

/// Reads server-sent events out of bytes that are cut anywhere.
#[derive(Debug, Default)]
struct Parser {
    line: Vec<u8>,
    event: String,
    data: String,
    id: Option<String>,
}

impl Parser {
    fn push(&mut self, bytes: &[u8], told: &mut VecDeque<Told>) -> Result<()> {
        for byte in bytes {
            if *byte != b'\n' {
                if self.line.len() + self.data.len() > MAX_EVENT {
                    return Err(Error::protocol("watch sandbox", "an event is larger than a sandbox can be"));
                }
                self.line.push(*byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches('\r');
            if line.is_empty() {
                told.extend(self.end()?);
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut self.event),
                "data" => self.data.push_str(value),
                "id" => self.id = Some(value.to_owned()),
                _ => {}
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<Option<Told>> {
        let (event, data) = (std::mem::take(&mut self.event), std::mem::take(&mut self.data));
        match event.as_str() {
            "state" => serde_json::from_str(&data)
                .map(|info| Some(Told::State(Box::new(info))))
                .map_err(|error| Error::protocol("watch sandbox", error.to_string())),
            "gone" => Ok(Some(Told::Gone)),
            // Later servers may tell more.
            _ => Ok(None),
        }
    }
}

struct Watching {
    client: Client,
    id: String,
    answer: Option<Answer>,
    parser: Parser,
    told: VecDeque<Told>,
    broken: usize,
}

impl Watching {
    /// The next state; nothing when the sandbox is gone.
    async fn next(&mut self) -> Result<Option<SandboxInfo>> {
        loop {
            match self.told.pop_front() {
                Some(Told::State(info)) => return Ok(Some(*info)),
                Some(Told::Gone) => return Ok(None),
                None => {}
            }
            if self.answer.is_none() {
                match open(&self.client, &self.id, self.parser.id.clone()).await {
                    Ok(answer) => self.answer = Some(answer),
                    // It ended while nobody listened.
                    Err(error) if error.is_not_found() && self.parser.id.is_some() => return Ok(None),
                    Err(error) => return Err(error),
                }
            }
            let idle = self.client.config().stream_idle_timeout;
            let Some(answer) = &mut self.answer else { continue };
            let read = tokio::time::timeout(idle, answer.response.chunk()).await;
            let error = match read {
                Ok(Ok(Some(bytes))) => {
                    self.broken = 0;
                    self.parser.push(&bytes, &mut self.told)?;
                    continue;
                }
                Ok(Ok(None)) => None,
                Ok(Err(error)) => Some(answer.broken(error)),
                Err(_) => Some(answer.silent(idle)),
            };
            // The server stopped, or the network did: another replica tells what came after.
            self.answer = None;
            self.parser.line.clear();
            self.parser.data.clear();
            self.broken += 1;
            if self.broken > self.client.config().retries {
                let ended = || Error::protocol("watch sandbox", "the stream ended before the sandbox did");
                return Err(error.unwrap_or_else(ended));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Opens the stream, after the event of this id when there is one.
async fn open(client: &Client, id: &str, last: Option<String>) -> Result<Answer> {
    let call = Call { streaming: true, ..client.call("watch sandbox", Retry::Idempotent) };
    let path = format!("/sandboxes/{}/events", segment(id));
    let request = move |request: reqwest::RequestBuilder| match &last {
        Some(last) => request.header("last-event-id", last),
        None => request,
    };
    client.send(call, Method::GET, &path, request).await
}

impl Client {
    /// The state of a sandbox at once and after each change, until it is gone. A stream that breaks is resumed where
    /// it was.
    ///
    /// ```no_run
    /// # async fn f(client: opensandbox::Client) -> opensandbox::Result<()> {
    /// use futures::TryStreamExt;
    /// let mut states = std::pin::pin!(client.watch("b1f3"));
    /// while let Some(sandbox) = states.try_next().await? {
    ///     println!("{}", sandbox.status.state);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn watch(&self, id: &str) -> impl Stream<Item = Result<SandboxInfo>> + Send + use<> {
        let watching = Watching {
            client: self.clone(),
            id: id.to_owned(),
            answer: None,
            parser: Parser::default(),
            told: VecDeque::new(),
            broken: 0,
        };
        stream::try_unfold(watching, async |mut watching| Ok(watching.next().await?.map(|info| (info, watching))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_however_they_are_cut() {
        let text = concat!(
            ": a comment\n\nevent: state\nid: 7\n",
            "data: {\"id\":\"s\",\"status\":{\"state\":\"Running\"},\"createdAt\":\"2026-01-01T00:00:00Z\"}\n\n",
            "event: later\ndata: {}\n\nevent: gone\r\ndata: {}\r\n\r\n",
        );
        for size in [1, 7, text.len()] {
            let (mut parser, mut told) = (Parser::default(), VecDeque::new());
            text.as_bytes().chunks(size).for_each(|piece| parser.push(piece, &mut told).unwrap());
            assert_eq!(told.len(), 2, "{told:?}");
            assert!(matches!(&told[0], Told::State(info) if info.status.state == "Running"));
            assert_eq!((&told[1], parser.id.as_deref()), (&Told::Gone, Some("7")));
        }
        let mut parser = Parser::default();
        assert!(parser.push(b"event: state\ndata: {\n\n", &mut VecDeque::new()).is_err());
    }
}
