//! A piece of a journal: up to 64 KiB of bytes, in memory or on the disk, and whose they are.

use super::{Source, Store};

/// Bytes of a full chunk.
pub const SIZE: usize = 64 << 10;
/// Changes of source that one chunk notes; it takes no more then.
const MAX_RUNS: usize = 1024;
/// Bytes of memory of one note.
const RUN: usize = size_of::<Run>();
/// Bytes of memory that every chunk takes, full or not.
const BASE: usize = size_of::<Chunk>();

#[derive(Debug, Clone, Copy)]
struct Run {
    source: Source,
    /// Offset in the chunk at which it ends.
    end: u32,
}

enum Data {
    Memory(Vec<u8>),
    Disk { slot: u32, len: u32 },
}

/// See the module.
pub struct Chunk {
    /// Absolute offset of its first byte.
    pub start: u64,
    data: Data,
    runs: Vec<Run>,
}

impl Chunk {
    /// An empty one.
    pub fn new(start: u64) -> Self {
        Self { start, data: Data::Memory(Vec::new()), runs: Vec::new() }
    }

    /// Bytes in it.
    pub fn len(&self) -> usize {
        match &self.data {
            Data::Memory(bytes) => bytes.len(),
            Data::Disk { len, .. } => *len as usize,
        }
    }

    /// Memory that it takes.
    pub fn memory(&self) -> usize {
        let data = match &self.data {
            Data::Memory(bytes) => bytes.capacity(),
            Data::Disk { .. } => 0,
        };
        BASE + data + self.runs.capacity() * RUN
    }

    /// Whether it has room for bytes of a source.
    pub fn takes(&self, source: Source) -> bool {
        let Data::Memory(bytes) = &self.data else { return false };
        bytes.len() < SIZE && (self.runs.len() < MAX_RUNS || self.runs.last().is_some_and(|run| run.source == source))
    }

    /// Takes as many of the bytes as fit; how many.
    pub fn push(&mut self, source: Source, bytes: &[u8]) -> usize {
        let Data::Memory(data) = &mut self.data else { return 0 };
        let taken = bytes.len().min(SIZE - data.len());
        // Grown by doubling, but never past the whole: what is reserved is counted.
        let wanted = data.len() + taken;
        if wanted > data.capacity() {
            let capacity = wanted.next_power_of_two().clamp(256, SIZE);
            data.reserve_exact(capacity - data.len());
        }
        data.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        let end = u32::try_from(data.len()).unwrap_or(u32::MAX);
        match self.runs.last_mut() {
            Some(last) if last.source == source => last.end = end,
            _ => self.runs.push(Run { source, end }),
        }
        taken
    }

    /// Moves its bytes to the disk.
    pub fn spill(&mut self, store: &Store) -> bool {
        let Data::Memory(bytes) = &self.data else { return false };
        let Some(slot) = store.write(bytes) else { return false };
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.data = Data::Disk { slot, len };
        self.runs.shrink_to_fit();
        true
    }

    /// Appends to `out` at most `max` bytes of one source from an absolute offset inside it; none if the
    /// disk fails.
    pub fn read(&self, store: &Store, offset: u64, max: usize, out: &mut Vec<u8>) -> Option<Source> {
        let from = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        let run = self.runs.get(self.runs.partition_point(|run| run.end as usize <= from))?;
        let to = (run.end as usize).min(from.saturating_add(max));
        match &self.data {
            Data::Memory(bytes) => out.extend_from_slice(bytes.get(from..to)?),
            Data::Disk { slot, .. } => store.read(*slot, from, to - from, out)?,
        }
        Some(run.source)
    }

    /// Gives its place on the disk back.
    pub fn free(&self, store: &Store) {
        if let Data::Disk { slot, .. } = self.data {
            store.free(slot);
        }
    }
}
