//! The journal: what an execution wrote, in order, under absolute byte offsets, within a bound.
//!
//! It lives in memory; the oldest bytes are dropped when the bound is passed, and every reader can
//! tell by its offset how many it missed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Bytes one execution keeps.
pub const EXECUTION_CAP: usize = 8 << 20;
/// Bytes all executions keep together.
pub const TOTAL_CAP: usize = 32 << 20;
/// A segment takes no more once it has this many bytes.
const SEGMENT: usize = 16 << 10;
/// A live reader slower than this many bytes in `PACE_WINDOW` no longer holds the process back.
const PACE_BYTES: u64 = 1 << 20;
/// See `PACE_BYTES`.
const PACE_WINDOW: Duration = Duration::from_secs(1);

/// Which stream bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Standard output, or both where they share a pipe.
    Stdout,
    /// Standard error.
    Stderr,
}

struct Segment {
    source: Source,
    start: u64,
    data: Vec<u8>,
}

struct Inner {
    segments: VecDeque<Segment>,
    end: u64,
    held: usize,
    cap: usize,
    /// Offset of the live reader that paces the process.
    pacer: Option<u64>,
    pace_given_up: bool,
}

/// Output of one execution.
pub struct Journal {
    inner: Mutex<Inner>,
    total: Arc<AtomicUsize>,
    grown: Notify,
    read: Notify,
    window: Duration,
}

/// What a read gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// Bytes of one source from the offset asked for.
    Bytes(Source, Vec<u8>),
    /// Bytes from the offset up to this one are gone.
    Lost(u64),
    /// Nothing (yet).
    Nothing,
}

impl Journal {
    /// An empty journal that keeps `cap` bytes and adds what it holds to `total`.
    pub fn new(cap: usize, total: Arc<AtomicUsize>) -> Self {
        let inner = Inner { segments: VecDeque::new(), end: 0, held: 0, cap, pacer: None, pace_given_up: false };
        Self { inner: Mutex::new(inner), total, grown: Notify::new(), read: Notify::new(), window: PACE_WINDOW }
    }

    /// Appends; drops the oldest bytes when the bound is passed.
    pub fn append(&self, source: Source, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        {
            let mut inner = self.inner.lock();
            let start = inner.end;
            match inner.segments.back_mut() {
                Some(last) if last.source == source && last.data.len() + bytes.len() <= SEGMENT => {
                    last.data.extend_from_slice(bytes);
                }
                _ => inner.segments.push_back(Segment { source, start, data: bytes.to_vec() }),
            }
            inner.end += bytes.len() as u64;
            inner.held += bytes.len();
            self.total.fetch_add(bytes.len(), Ordering::Relaxed);
            let over = self.total.load(Ordering::Relaxed) > TOTAL_CAP;
            let cap = if over { inner.cap / 8 } else { inner.cap };
            self.shrink(&mut inner, cap);
        }
        self.grown.notify_waiters();
    }

    fn shrink(&self, inner: &mut Inner, cap: usize) {
        while inner.held > cap {
            let Some(first) = inner.segments.pop_front() else { break };
            inner.held -= first.data.len();
            self.total.fetch_sub(first.data.len(), Ordering::Relaxed);
        }
    }

    /// Drops everything; offsets stay what they were.
    pub fn clear(&self) {
        self.shrink(&mut self.inner.lock(), 0);
    }

    /// Offset after the last byte.
    pub fn end(&self) -> u64 {
        self.inner.lock().end
    }

    /// Bytes held now.
    pub fn held(&self) -> usize {
        self.inner.lock().held
    }

    /// At most `max` bytes of one source from `offset`, none past `limit`.
    pub fn read(&self, offset: u64, limit: u64, max: usize) -> Read {
        let inner = self.inner.lock();
        let limit = limit.min(inner.end);
        if offset >= limit {
            return Read::Nothing;
        }
        let first = inner.segments.front().map_or(inner.end, |s| s.start);
        if offset < first {
            return Read::Lost(first.min(limit));
        }
        let index = inner.segments.partition_point(|s| s.start <= offset).saturating_sub(1);
        let Some(segment) = inner.segments.get(index) else { return Read::Nothing };
        let from = usize::try_from(offset - segment.start).unwrap_or(usize::MAX);
        let room = usize::try_from(limit - offset).unwrap_or(usize::MAX).min(max);
        let to = segment.data.len().min(from.saturating_add(room));
        Read::Bytes(segment.source, segment.data.get(from..to).unwrap_or_default().to_vec())
    }

    /// All bytes from `offset` (or from the first still held) up to at most `max`, of every source
    /// as they came, and the offset after them.
    pub fn read_all(&self, offset: u64, max: usize) -> (Vec<u8>, u64) {
        let (mut at, mut out) = (offset, Vec::new());
        while out.len() < max {
            match self.read(at, u64::MAX, max - out.len()) {
                Read::Bytes(_, bytes) => {
                    at += bytes.len() as u64;
                    out.extend_from_slice(&bytes);
                }
                Read::Lost(to) => at = to,
                Read::Nothing => break,
            }
        }
        (out, at)
    }

    /// The last `max` bytes.
    pub fn tail(&self, max: usize) -> Vec<u8> {
        self.read_all(self.end().saturating_sub(max as u64), max).0
    }

    /// Completes when the journal has grown past `offset`.
    pub async fn grown(&self, offset: u64) {
        loop {
            let notified = self.grown.notified();
            if self.end() > offset {
                return;
            }
            notified.await;
        }
    }

    /// Says how far the live reader is; `None` when it has gone.
    pub fn pace(&self, offset: Option<u64>) {
        self.inner.lock().pacer = offset;
        self.read.notify_waiters();
    }

    fn lag(&self) -> Option<(u64, u64)> {
        let inner = self.inner.lock();
        let at = inner.pacer.filter(|_| !inner.pace_given_up)?;
        (inner.end - at.min(inner.end) >= (inner.cap / 2) as u64).then_some((at, inner.end))
    }

    /// Completes when more may be read from the process: at once, unless a live reader lags and
    /// still moves. A reader that hardly moves loses this right for good, so that a slow or hung
    /// one can't hold the process.
    pub async fn paced(&self) {
        let Some((mut from, _)) = self.lag() else { return };
        let mut until = Instant::now() + self.window;
        loop {
            let notified = self.read.notified();
            let Some((at, _)) = self.lag() else { return };
            if at >= from + PACE_BYTES {
                (from, until) = (at, Instant::now() + self.window);
            }
            if tokio::time::timeout_at(until, notified).await.is_err() {
                self.inner.lock().pace_given_up = true;
                return;
            }
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(cap: usize) -> Journal {
        Journal::new(cap, Arc::default())
    }

    #[test]
    fn offsets_are_absolute_and_sources_apart() {
        let j = journal(1 << 20);
        j.append(Source::Stdout, b"ab");
        j.append(Source::Stdout, b"c");
        j.append(Source::Stderr, b"X");
        assert_eq!(j.read(0, u64::MAX, 100), Read::Bytes(Source::Stdout, b"abc".to_vec()));
        assert_eq!(j.read(1, u64::MAX, 1), Read::Bytes(Source::Stdout, b"b".to_vec()));
        assert_eq!(j.read(3, u64::MAX, 100), Read::Bytes(Source::Stderr, b"X".to_vec()));
        assert_eq!(j.read(4, u64::MAX, 100), Read::Nothing);
        assert_eq!(j.read(3, 3, 100), Read::Nothing);
        assert_eq!(j.read_all(1, 100), (b"bcX".to_vec(), 4));
        assert_eq!(j.tail(2), b"cX");
    }

    #[test]
    fn a_gap_names_where_the_bytes_go_on() {
        let total = Arc::new(AtomicUsize::new(0));
        let j = Journal::new(SEGMENT, total.clone());
        j.append(Source::Stdout, &[b'a'; SEGMENT]);
        j.append(Source::Stdout, b"tail");
        assert_eq!(j.read(0, u64::MAX, 100), Read::Lost(SEGMENT as u64));
        assert_eq!(j.read_all(0, 100), (b"tail".to_vec(), SEGMENT as u64 + 4));
        assert_eq!(total.load(Ordering::Relaxed), 4);
        j.clear();
        assert_eq!((j.end(), j.held()), (SEGMENT as u64 + 4, 0));
    }

    #[tokio::test]
    async fn a_reader_that_does_not_move_loses_its_right() {
        let mut j = journal(2 * SEGMENT);
        j.window = Duration::from_millis(1);
        j.pace(Some(0));
        j.paced().await;
        assert!(j.lag().is_none());
        j.append(Source::Stdout, &[0; SEGMENT]);
        assert!(j.lag().is_some());
        j.paced().await;
        assert!(j.inner.lock().pace_given_up);
        assert!(j.lag().is_none());
    }

    #[tokio::test]
    async fn a_gone_reader_holds_nobody() {
        let j = journal(2 * SEGMENT);
        j.pace(Some(0));
        j.append(Source::Stdout, &[0; SEGMENT]);
        tokio::join!(j.paced(), async { j.pace(None) });
        assert!(!j.inner.lock().pace_given_up);
    }
}
