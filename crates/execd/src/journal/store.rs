//! What all journals share: the bounds, the file, and the figures.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Journal;
use super::spill::Spill;

/// Bounds of all journals.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of memory of all.
    pub memory: usize,
    /// Bytes of memory of one.
    pub share: usize,
    /// Bytes on the disk of all; 0 is none.
    pub disk: u64,
    /// Bytes of output of one, in memory and on the disk.
    pub execution: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: 32 << 20, share: 1 << 20, disk: 512 << 20, execution: 256 << 20 }
    }
}

/// Figures of all journals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of memory in use.
    pub memory: usize,
    /// Bytes on the disk in use.
    pub disk: u64,
    /// Bytes dropped so far, read before or not.
    pub dropped: u64,
    /// Bytes that a reader was told it missed.
    pub lost: u64,
    /// Readers that were too slow to be waited for.
    pub slow_readers: u64,
}

/// See the module.
pub struct Store {
    limits: Limits,
    spill: Mutex<Option<Spill>>,
    has_disk: bool,
    memory: AtomicUsize,
    dropped: AtomicU64,
    lost: AtomicU64,
    slow: AtomicU64,
    /// Journals of executions that have ended, the oldest first: they give way to living ones.
    ended: Mutex<VecDeque<Weak<Journal>>>,
}

impl Default for Store {
    fn default() -> Self {
        Self::new(Limits::default(), std::iter::empty())
    }
}

impl Store {
    /// A store whose file is in the first of these directories that has a disk.
    pub fn new<'a>(limits: Limits, dirs: impl Iterator<Item = &'a Path>) -> Self {
        let spill = Spill::open(dirs, limits.disk);
        Self {
            limits,
            has_disk: spill.is_some(),
            spill: Mutex::new(spill),
            memory: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            slow: AtomicU64::new(0),
            ended: Mutex::default(),
        }
    }

    /// Bytes of output that one execution keeps.
    pub fn execution_cap(&self) -> u64 {
        // Without a disk one execution may have a quarter of the memory.
        if self.has_disk { self.limits.execution } else { self.limits.execution.min(self.limits.memory as u64 / 4) }
    }

    /// Bytes of memory that one execution may take now.
    pub(super) fn memory_share(&self) -> usize {
        let one = if self.has_disk { self.limits.share } else { self.limits.memory / 4 };
        // When all have too much, each goes down to what a chunk needs.
        if self.memory.load(Relaxed) > self.limits.memory { one / 8 } else { one }
    }

    /// Notes that an execution has ended.
    pub fn ended(&self, journal: &Arc<Journal>) {
        let mut ended = self.ended.lock();
        ended.retain(|journal| journal.strong_count() > 0);
        ended.push_back(Arc::downgrade(journal));
    }

    /// Lets ended executions give way when space is short. Called without any journal's lock.
    pub(super) fn make_room(&self) {
        while (self.has_disk && self.disk_full()) || self.memory.load(Relaxed) > self.limits.memory {
            let Some(oldest) = self.ended.lock().pop_front() else { return };
            if let Some(journal) = oldest.upgrade() {
                journal.clear();
            }
        }
    }

    pub(super) fn disk_full(&self) -> bool {
        self.spill.lock().as_mut().is_some_and(Spill::full)
    }

    pub(super) fn write(&self, bytes: &[u8]) -> Option<u32> {
        self.spill.lock().as_mut()?.write(bytes).ok()
    }

    pub(super) fn read(&self, slot: u32, from: usize, len: usize, out: &mut Vec<u8>) -> Option<()> {
        self.spill.lock().as_ref()?.read(slot, from, len, out).ok()
    }

    pub(super) fn free(&self, slot: u32) {
        if let Some(spill) = self.spill.lock().as_mut() {
            spill.free(slot);
        }
    }

    pub(super) fn add_memory(&self, bytes: usize) {
        self.memory.fetch_add(bytes, Relaxed);
    }

    pub(super) fn sub_memory(&self, bytes: usize) {
        self.memory.fetch_sub(bytes, Relaxed);
    }

    pub(super) fn count_dropped(&self, bytes: u64) {
        self.dropped.fetch_add(bytes, Relaxed);
    }

    pub(super) fn count_slow(&self) {
        self.slow.fetch_add(1, Relaxed);
    }

    /// Counts what a reader was told it missed.
    pub fn count_lost(&self, bytes: u64) {
        self.lost.fetch_add(bytes, Relaxed);
    }

    /// The figures now.
    pub fn stats(&self) -> Stats {
        Stats {
            memory: self.memory.load(Relaxed),
            disk: self.spill.lock().as_ref().map_or(0, Spill::bytes),
            dropped: self.dropped.load(Relaxed),
            lost: self.lost.load(Relaxed),
            slow_readers: self.slow.load(Relaxed),
        }
    }
}
