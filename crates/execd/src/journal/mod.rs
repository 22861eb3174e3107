//! The journal: what an execution wrote, in order, under absolute byte offsets, within bounds.
//!
//! The newest bytes are in memory, older ones in one file on the disk; past the bound the oldest are
//! dropped, and every reader can tell by its offset how many it missed.

mod chunk;
mod pace;
mod spill;
mod store;

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use chunk::Chunk;
use pace::Readers;
pub use pace::{Pace, ReaderId};
pub use store::{Limits, Stats, Store};

/// Which stream bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Standard output, or both where they share a pipe.
    Stdout,
    /// Standard error.
    Stderr,
}

struct Inner {
    chunks: VecDeque<Chunk>,
    /// Chunks at the front whose bytes are on the disk.
    on_disk: usize,
    end: u64,
    /// Bytes of output held in memory and on the disk.
    held: u64,
    /// Bytes of memory that the chunks take.
    memory: usize,
    cap: u64,
    readers: Readers,
}

/// Output of one execution.
pub struct Journal {
    inner: Mutex<Inner>,
    store: Arc<Store>,
    grown: Notify,
    read: Notify,
    pace: Pace,
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

/// As [`Read`], with the bytes elsewhere.
enum Found {
    Bytes(Source),
    Lost(u64),
    Nothing,
}

impl Journal {
    /// An empty journal within the bounds of `store`.
    pub fn new(store: Arc<Store>) -> Self {
        let cap = store.execution_cap();
        Self::with_cap(store, cap, Pace::STREAM)
    }

    /// An empty journal that keeps `cap` bytes.
    pub fn with_cap(store: Arc<Store>, cap: u64, pace: Pace) -> Self {
        let inner =
            Inner { chunks: VecDeque::new(), on_disk: 0, end: 0, held: 0, memory: 0, cap, readers: Readers::default() };
        Self { inner: Mutex::new(inner), store, grown: Notify::new(), read: Notify::new(), pace }
    }

    /// Appends; the oldest bytes go to the disk, and are dropped past the bound.
    pub fn append(&self, source: Source, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.store.make_room();
        {
            let mut inner = self.inner.lock();
            let mut rest = bytes;
            while !rest.is_empty() {
                if !inner.chunks.back().is_some_and(|chunk| chunk.takes(source)) {
                    let chunk = Chunk::new(inner.end);
                    inner.memory += chunk.memory();
                    self.store.add_memory(chunk.memory());
                    inner.chunks.push_back(chunk);
                }
                let Some(last) = inner.chunks.back_mut() else { break };
                let before = last.memory();
                let taken = last.push(source, rest);
                let grown = last.memory() - before;
                inner.end += taken as u64;
                inner.held += taken as u64;
                inner.memory += grown;
                self.store.add_memory(grown);
                rest = rest.get(taken..).unwrap_or_default();
                if taken == 0 {
                    break;
                }
            }
            self.settle(&mut inner);
        }
        self.grown.notify_waiters();
    }

    /// Brings what is held within the bounds.
    fn settle(&self, inner: &mut Inner) {
        let share = self.store.memory_share();
        while inner.memory > share && self.spill_one(inner) {}
        // What the disk does not take, and the lists of many small pieces, count against memory.
        // The last chunk still grows and stays.
        while inner.held > inner.cap || inner.memory - inner.chunks.back().map_or(0, Chunk::memory) > share {
            if !self.drop_first(inner) {
                break;
            }
        }
    }

    /// Moves the oldest chunk in memory to the disk; false if that can't be.
    fn spill_one(&self, inner: &mut Inner) -> bool {
        let index = inner.on_disk;
        // The last one still grows.
        if index + 1 >= inner.chunks.len() {
            return false;
        }
        if self.store.disk_full() && index > 0 && !self.drop_first(inner) {
            return false;
        }
        let index = inner.on_disk;
        let Some(chunk) = inner.chunks.get_mut(index) else { return false };
        let before = chunk.memory();
        if !chunk.spill(&self.store) {
            return false;
        }
        let freed = before - chunk.memory();
        inner.on_disk += 1;
        inner.memory -= freed;
        self.store.sub_memory(freed);
        true
    }

    fn drop_first(&self, inner: &mut Inner) -> bool {
        let Some(first) = inner.chunks.pop_front() else { return false };
        inner.on_disk = inner.on_disk.saturating_sub(1);
        inner.held -= first.len() as u64;
        inner.memory -= first.memory();
        self.store.sub_memory(first.memory());
        self.store.count_dropped(first.len() as u64);
        first.free(&self.store);
        true
    }

    /// Drops everything; offsets stay what they were.
    pub fn clear(&self) {
        let mut inner = self.inner.lock();
        while self.drop_first(&mut inner) {}
    }

    /// Counts what a reader was told it missed.
    pub fn count_lost(&self, bytes: u64) {
        self.store.count_lost(bytes);
    }

    /// Offset after the last byte.
    pub fn end(&self) -> u64 {
        self.inner.lock().end
    }

    /// Offset of the first byte that is still held.
    pub fn begin(&self) -> u64 {
        let inner = self.inner.lock();
        inner.chunks.front().map_or(inner.end, |chunk| chunk.start)
    }

    /// Bytes held now.
    pub fn held(&self) -> u64 {
        self.inner.lock().held
    }

    /// At most `max` bytes of one source from `offset`, none past `limit`.
    pub fn read(&self, offset: u64, limit: u64, max: usize) -> Read {
        let mut out = Vec::new();
        match self.read_into(offset, limit, max, &mut out) {
            Found::Bytes(source) => Read::Bytes(source, out),
            Found::Lost(to) => Read::Lost(to),
            Found::Nothing => Read::Nothing,
        }
    }

    fn read_into(&self, offset: u64, limit: u64, max: usize, out: &mut Vec<u8>) -> Found {
        let inner = self.inner.lock();
        let limit = limit.min(inner.end);
        if offset >= limit {
            return Found::Nothing;
        }
        let first = inner.chunks.front().map_or(inner.end, |chunk| chunk.start);
        if offset < first {
            return Found::Lost(first.min(limit));
        }
        let index = inner.chunks.partition_point(|chunk| chunk.start <= offset).saturating_sub(1);
        let Some(chunk) = inner.chunks.get(index) else { return Found::Nothing };
        let room = usize::try_from(limit - offset).unwrap_or(usize::MAX).min(max);
        match chunk.read(&self.store, offset, room, out) {
            Some(source) => Found::Bytes(source),
            // The disk does not give it back: the same as gone.
            None => Found::Lost((chunk.start + chunk.len() as u64).min(limit)),
        }
    }

    /// All bytes from `offset` up to at most `max`, of every source as they came; the offset after
    /// them, and how many were passed over because they are gone.
    pub fn read_all(&self, offset: u64, max: usize) -> (Vec<u8>, u64, u64) {
        let (mut at, mut lost, mut out) = (offset, 0, Vec::new());
        while out.len() < max {
            let before = out.len();
            match self.read_into(at, u64::MAX, max - before, &mut out) {
                Found::Bytes(_) => at += (out.len() - before) as u64,
                // A gap inside an answer would hide where it is.
                Found::Lost(_) if before > 0 => break,
                Found::Lost(to) => {
                    lost += to - at;
                    at = to;
                }
                Found::Nothing => break,
            }
        }
        (out, at, lost)
    }

    /// The byte at an offset, if it is held.
    pub fn byte(&self, offset: u64) -> Option<(Source, u8)> {
        match self.read(offset, u64::MAX, 1) {
            Read::Bytes(source, bytes) => bytes.first().map(|byte| (source, *byte)),
            Read::Lost(_) | Read::Nothing => None,
        }
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
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(memory: usize, disk: u64, execution: u64) -> Arc<Store> {
        let limits = Limits { memory, disk, execution, share: memory };
        Arc::new(Store::new(limits, [std::env::temp_dir()].iter().map(std::path::PathBuf::as_path)))
    }

    fn text(journal: &Journal, from: u64) -> (String, u64) {
        let (bytes, _, lost) = journal.read_all(from, usize::MAX);
        (String::from_utf8(bytes).unwrap(), lost)
    }

    #[test]
    fn offsets_are_absolute_and_sources_apart() {
        let j = Journal::new(small(1 << 20, 0, 1 << 20));
        j.append(Source::Stdout, b"ab");
        j.append(Source::Stdout, b"c");
        j.append(Source::Stderr, b"X");
        assert_eq!(j.read(0, u64::MAX, 100), Read::Bytes(Source::Stdout, b"abc".to_vec()));
        assert_eq!(j.read(1, u64::MAX, 1), Read::Bytes(Source::Stdout, b"b".to_vec()));
        assert_eq!(j.read(3, u64::MAX, 100), Read::Bytes(Source::Stderr, b"X".to_vec()));
        assert_eq!(j.read(4, u64::MAX, 100), Read::Nothing);
        assert_eq!(j.read(3, 3, 100), Read::Nothing);
        assert_eq!(j.read_all(1, 100), (b"bcX".to_vec(), 4, 0));
        assert_eq!((j.tail(2), j.byte(3)), (b"cX".to_vec(), Some((Source::Stderr, b'X'))));
    }

    #[test]
    fn what_memory_does_not_hold_is_read_from_the_disk() {
        let store = small(128 << 10, 64 << 20, 64 << 20);
        let j = Journal::new(store.clone());
        let mut want = Vec::new();
        for number in 0..200_000u32 {
            let line = format!("{number}\n");
            let source = if number % 1000 == 0 { Source::Stderr } else { Source::Stdout };
            j.append(source, line.as_bytes());
            want.extend_from_slice(line.as_bytes());
        }
        assert!(text(&j, 0) == (String::from_utf8(want.clone()).unwrap(), 0));
        assert!(store.stats().memory <= 256 << 10, "{:?}", store.stats());
        assert!(store.stats().disk > 0);
        for at in [0, 1, 65_535, 65_536, 700_000, want.len() as u64 - 1] {
            assert_eq!(j.byte(at).unwrap().1, want[usize::try_from(at).unwrap()]);
        }
        drop(j);
        assert_eq!((store.stats().memory, store.stats().disk), (0, 0));
    }

    #[test]
    fn a_gap_names_where_the_bytes_go_on() {
        let store = small(1 << 20, 0, 100 << 10);
        let j = Journal::new(store.clone());
        j.append(Source::Stdout, &[b'a'; chunk::SIZE]);
        j.append(Source::Stdout, &[b'b'; chunk::SIZE]);
        j.append(Source::Stdout, b"tail");
        assert_eq!(j.read(5, u64::MAX, 100), Read::Lost(chunk::SIZE as u64));
        let (rest, lost) = text(&j, 5);
        assert_eq!((rest.len(), lost), (chunk::SIZE + 4, chunk::SIZE as u64 - 5));
        assert_eq!(store.stats().dropped, chunk::SIZE as u64);
        j.clear();
        assert_eq!((j.end(), j.held(), j.begin()), (2 * chunk::SIZE as u64 + 4, 0, 2 * chunk::SIZE as u64 + 4));
    }

    #[test]
    fn a_full_disk_costs_the_oldest_bytes_of_this_execution() {
        let store = small(128 << 10, 256 << 10, 64 << 20);
        let j = Journal::new(store.clone());
        let other = Journal::new(store.clone());
        other.append(Source::Stdout, b"kept");
        for _ in 0..50 {
            j.append(Source::Stdout, &[b'x'; 32 << 10]);
        }
        assert_eq!(j.end(), 50 * (32 << 10));
        assert!(j.begin() > 0 && j.held() >= 128 << 10, "{} {}", j.begin(), j.held());
        assert!(store.stats().disk <= 256 << 10);
        assert_eq!(text(&other, 0), ("kept".to_owned(), 0));
    }

    #[test]
    fn ended_executions_give_way_first() {
        let store = small(64 << 10, 512 << 10, 64 << 20);
        let old = Arc::new(Journal::new(store.clone()));
        old.append(Source::Stdout, &[b'o'; 300 << 10]);
        store.ended(&old);
        let new = Journal::new(store);
        for _ in 0..8 {
            new.append(Source::Stdout, &[b'n'; 48 << 10]);
        }
        assert_eq!((old.held(), new.begin(), new.held()), (0, 0, 384 << 10));
    }

    #[test]
    fn many_small_pieces_are_bounded_too() {
        let store = small(256 << 10, 64 << 20, 64 << 20);
        let j = Journal::new(store.clone());
        for number in 0..1_000_000u32 {
            j.append(if number % 2 == 0 { Source::Stdout } else { Source::Stderr }, b"x");
        }
        assert!(store.stats().memory <= 512 << 10, "{:?}", store.stats());
        assert_eq!(j.end(), 1_000_000);
    }
}
