//! Live readers: one that is fast but a little behind holds the process back for a moment, so that
//! nothing need be lost; one that is slow holds nobody.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{Inner, Journal};

/// How fast a reader must be to be waited for.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Bytes that it must read in the window.
    pub bytes: u64,
    /// See `bytes`.
    pub window: Duration,
}

impl Pace {
    /// Of streams: 16 MiB a second.
    pub const STREAM: Self = Self { bytes: 4 << 20, window: Duration::from_millis(250) };
    /// Of terminals: any progress in ten seconds, as the published wire has it.
    pub const TERMINAL: Self = Self { bytes: 1, window: Duration::from_secs(10) };
}

/// A live reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReaderId(u64);

#[derive(Default)]
pub(super) struct Readers {
    /// Offset of each reader that is waited for.
    live: HashMap<u64, u64>,
    next: u64,
}

impl Inner {
    /// The reader that is furthest behind, if it is so far behind that bytes would soon be dropped.
    fn lag(&self) -> Option<(u64, u64)> {
        let (id, at) = self.readers.live.iter().min_by_key(|(_, at)| **at)?;
        // A chunk may still come whole before the bound is met.
        (self.end - (*at).min(self.end) >= self.cap / 4 * 3).then_some((*id, *at))
    }
}

impl Journal {
    /// Registers a live reader at an offset.
    pub fn join(&self, offset: u64) -> ReaderId {
        let mut inner = self.inner.lock();
        inner.readers.next += 1;
        let id = inner.readers.next;
        inner.readers.live.insert(id, offset);
        ReaderId(id)
    }

    /// Says how far a reader is.
    pub fn reached(&self, reader: ReaderId, offset: u64) {
        if let Some(at) = self.inner.lock().readers.live.get_mut(&reader.0) {
            *at = offset;
        }
        self.read.notify_waiters();
    }

    /// A reader has gone.
    pub fn leave(&self, reader: ReaderId) {
        self.inner.lock().readers.live.remove(&reader.0);
        self.read.notify_waiters();
    }

    /// Whether a reader is still waited for.
    pub fn keeps_up(&self, reader: ReaderId) -> bool {
        self.inner.lock().readers.live.contains_key(&reader.0)
    }

    /// Completes when more may be read from the process: at once, unless a fast reader lags. A reader
    /// below the pace loses this right for good, so that a slow or hung one can't hold the process.
    pub async fn paced(&self) {
        let Some((mut id, mut from)) = self.inner.lock().lag() else { return };
        let mut until = Instant::now() + self.pace.window;
        loop {
            let notified = self.read.notified();
            let Some((slowest, at)) = self.inner.lock().lag() else { return };
            if slowest != id || at >= from + self.pace.bytes {
                (id, from, until) = (slowest, at, Instant::now() + self.pace.window);
            }
            if tokio::time::timeout_at(until, notified).await.is_err() {
                self.inner.lock().readers.live.remove(&id);
                self.store.count_slow();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Source, Store};
    use super::*;

    fn journal() -> Journal {
        let pace = Pace { bytes: 1 << 20, window: Duration::from_millis(1) };
        Journal::with_cap(Arc::new(Store::default()), 100 << 10, pace)
    }

    #[tokio::test]
    async fn a_reader_that_does_not_move_loses_its_right() {
        let j = journal();
        let reader = j.join(0);
        j.paced().await;
        assert!(j.keeps_up(reader));
        j.append(Source::Stdout, &[0; 80 << 10]);
        j.paced().await;
        assert!(!j.keeps_up(reader));
        assert_eq!(j.store.stats().slow_readers, 1);
        j.paced().await;
    }

    #[tokio::test]
    async fn a_gone_reader_holds_nobody_and_a_quick_one_goes_on() {
        let mut j = journal();
        j.pace.window = Duration::from_secs(1000);
        let (gone, quick) = (j.join(0), j.join(0));
        j.append(Source::Stdout, &[0; 80 << 10]);
        tokio::join!(j.paced(), async {
            j.leave(gone);
            j.reached(quick, 80 << 10);
        });
        assert!(j.keeps_up(quick));
        assert_eq!(j.store.stats().slow_readers, 0);
    }
}
