//! The bytes of an execution as they came, both streams in one, until it ends.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;

use super::body::Reader;
use crate::exec::Execution;
use crate::journal::Read;

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
            match execution.journal.read(at, limit, BATCH) {
                Read::Bytes(_, bytes) => {
                    at += bytes.len() as u64;
                    reader.reached(at);
                    return Ok(Some((Bytes::from(bytes), (reader, at))));
                }
                Read::Lost(to) => {
                    reader.lost(to - at);
                    return Err(io::Error::other(format!("{} bytes of output were lost", to - at)));
                }
                Read::Nothing if outcome.is_some() => return Ok(None),
                Read::Nothing => {
                    tokio::select! {
                        () = execution.journal.grown(at) => {}
                        _ = execution.ended() => {}
                    }
                }
            }
        }
    })
}
