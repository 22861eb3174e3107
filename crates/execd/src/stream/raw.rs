//! The bytes of an execution as they came, both streams in one, until it ends.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;

use super::body::Reader;
use crate::exec::Execution;

/// Bytes given at once.
const BATCH: usize = 256 << 10;

/// The stream, from an offset. Bytes that are gone break it off: there is no other way to say so here.
pub fn raw(execution: Arc<Execution>, offset: u64) -> impl Stream<Item = io::Result<Bytes>> {
    let reader = Reader::join(execution, offset);
    futures::stream::try_unfold((reader, offset), |(reader, mut at)| async move {
        let execution = reader.execution.clone();
        loop {
            let outcome = execution.outcome();
            let limit = outcome.as_ref().map_or(u64::MAX, |o| o.output_end);
            let room = usize::try_from(limit.saturating_sub(at)).unwrap_or(usize::MAX).min(BATCH);
            let (bytes, next, lost) = execution.journal.read_all(at, room);
            if lost > 0 {
                reader.lost(lost);
                return Err(io::Error::other(format!("{lost} bytes of output were lost")));
            }
            if !bytes.is_empty() {
                at = next;
                reader.reached(at);
                return Ok(Some((Bytes::from(bytes), (reader, at))));
            }
            if outcome.is_some() {
                return Ok(None);
            }
            tokio::select! {
                () = execution.journal.grown(at) => {}
                _ = execution.ended() => {}
            }
        }
    })
}
