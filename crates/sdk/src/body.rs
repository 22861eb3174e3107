//! Reading answers within bounds.

use std::{collections::VecDeque, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use serde::de::DeserializeOwned;

use crate::{Error, Result, parser::EventParser, transport::Answer};

/// Most bytes of a JSON answer: a page of 200 sandboxes is below 1 MiB, a long directory may have more.
const MAX_JSON: u64 = 32 << 20;
/// Most bytes read of an error answer.
const MAX_ERROR: usize = 64 << 10;

/// The whole body, if it has at most `limit` bytes.
pub(crate) async fn bytes(mut answer: Answer, limit: u64, hint: &'static str) -> Result<Bytes> {
    let too_large = Error::TooLarge { operation: answer.operation, limit, hint };
    if answer.response.content_length().is_some_and(|n| n > limit) {
        return Err(too_large);
    }
    let mut all = BytesMut::new();
    loop {
        let chunk = answer.response.chunk().await.map_err(|e| answer.broken(e))?;
        let Some(chunk) = chunk else { return Ok(all.freeze()) };
        if (all.len() + chunk.len()) as u64 > limit {
            return Err(too_large);
        }
        all.extend_from_slice(&chunk);
    }
}

/// The body as JSON.
pub(crate) async fn json<T: DeserializeOwned>(answer: Answer) -> Result<T> {
    let operation = answer.operation;
    let body = bytes(answer, MAX_JSON, "ask for less").await?;
    serde_json::from_slice(&body).map_err(|e| Error::protocol(operation, format!("{e} in {}", excerpt(&body))))
}

/// The body as a stream of JSON objects, as the daemon sends what changes. It ends with an error when it breaks.
pub(crate) fn json_stream<T: DeserializeOwned + Send + 'static>(
    answer: Answer,
    idle: Duration,
) -> BoxStream<'static, Result<T>> {
    let operation = answer.operation;
    let state = (answer.chunks(idle), EventParser::<T>::default(), VecDeque::new());
    futures::stream::try_unfold(state, move |(mut chunks, mut parser, mut ready)| async move {
        loop {
            if let Some(event) = ready.pop_front() {
                return Ok(Some((event, (chunks, parser, ready))));
            }
            let Some(chunk) = chunks.try_next().await? else { return Ok(None) };
            let mut events = Vec::new();
            parser.push(&chunk, &mut events).map_err(|e| Error::protocol(operation, e.to_string()))?;
            ready.extend(events);
        }
    })
    .boxed()
}

/// What can be had of an error's body; a broken connection must not hide the status.
pub(crate) async fn error_text(response: &mut reqwest::Response) -> Vec<u8> {
    let mut all = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        all.extend_from_slice(&chunk[..chunk.len().min(MAX_ERROR - all.len())]);
        if all.len() == MAX_ERROR {
            break;
        }
    }
    all
}

/// The start of a body, fit for a message.
pub(crate) fn excerpt(body: &[u8]) -> String {
    const SHOWN: usize = 200;
    let text = String::from_utf8_lossy(&body[..body.len().min(SHOWN)]);
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if body.len() > SHOWN {
        line.push('…');
    }
    if line.is_empty() { "an empty body".to_owned() } else { line }
}
