//! The journal's file: one for all executions, without a name, in slots that are used again.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::libc;
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};

use super::chunk::SIZE;

/// Share of the free space that is left to others.
const SPARE: u64 = 4;
/// Slots after which the free space is looked at again.
const LOOK: u32 = 256;
/// Chunks after which a disk that was full is tried again.
const AGAIN: u32 = 16;

/// See the module.
pub struct Spill {
    file: File,
    /// Slots that were ever written.
    used: u32,
    free: Vec<u32>,
    max: u32,
    /// How many of those there may be now: fewer while the disk is full.
    now: u32,
    /// Chunks that had no place since.
    refused: u32,
}

impl Spill {
    /// A file in the first of these directories that is on a disk; a file system in memory would only
    /// move the bytes from one memory to another.
    pub fn open<'a>(dirs: impl Iterator<Item = &'a Path>, bytes: u64) -> Option<Self> {
        let max = u32::try_from(bytes / SIZE as u64).unwrap_or(u32::MAX);
        if max == 0 {
            return None;
        }
        let file = dirs.into_iter().find_map(|dir| nameless(dir).ok().filter(on_disk))?;
        Some(Self { file, used: 0, free: Vec::new(), max, now: max, refused: 0 })
    }

    /// Whether no slot is left for one more chunk. A disk that was full is tried again now and then.
    pub fn full(&mut self) -> bool {
        let full = self.free.is_empty() && self.used >= self.now;
        if full && self.now < self.max {
            self.refused += 1;
            if self.refused.is_multiple_of(AGAIN) {
                self.now = self.max;
                return false;
            }
        }
        full
    }

    /// Bytes of the slots in use.
    pub fn bytes(&self) -> u64 {
        (u64::from(self.used) - self.free.len() as u64) * SIZE as u64
    }

    /// Writes a chunk into a free slot.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<u32> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.used >= self.now => return Err(io::Error::from(io::ErrorKind::StorageFull)),
            None => {
                if self.used.is_multiple_of(LOOK) && !self.room() {
                    self.now = self.used;
                    return Err(io::Error::from(io::ErrorKind::StorageFull));
                }
                self.used += 1;
                self.used - 1
            }
        };
        match self.file.write_all_at(bytes, place(slot)) {
            Ok(()) => Ok(slot),
            Err(error) => {
                self.free(slot);
                if error.kind() == io::ErrorKind::StorageFull {
                    self.now = self.used;
                }
                Err(error)
            }
        }
    }

    /// Appends a part of a slot to `out`.
    pub fn read(&self, slot: u32, from: usize, len: usize, out: &mut Vec<u8>) -> io::Result<()> {
        let before = out.len();
        out.resize(before + len, 0);
        let read = self.file.read_exact_at(out.get_mut(before..).unwrap_or_default(), place(slot) + from as u64);
        if read.is_err() {
            out.truncate(before);
        }
        read
    }

    /// Gives a slot back; the file is emptied when it was the last.
    pub fn free(&mut self, slot: u32) {
        self.free.push(slot);
        if self.free.len() == self.used as usize {
            self.free = Vec::new();
            self.used = 0;
            // The space is the sandbox's; if it stays taken, the next run uses it again.
            let _ = self.file.set_len(0);
        }
    }

    fn room(&self) -> bool {
        let Ok(system) = fstatfs(&self.file) else { return true };
        let free = system.blocks_available().saturating_mul(u64::try_from(system.block_size()).unwrap_or(0));
        free / SPARE > u64::from(LOOK) * SIZE as u64
    }
}

fn place(slot: u32) -> u64 {
    u64::from(slot) * SIZE as u64
}

/// A file that nobody can name: it goes with this process, whatever happens to it.
fn nameless(dir: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).mode(0o600);
    let error = match options.clone().custom_flags(libc::O_TMPFILE).open(dir) {
        Ok(file) => return Ok(file),
        Err(error) => error,
    };
    if !matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::ENOENT)) {
        return Err(error);
    }
    let path = dir.join(format!(".osb-journal-{}", uuid::Uuid::new_v4().simple()));
    let file = options.create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

fn on_disk(file: &File) -> bool {
    fstatfs(file).is_ok_and(|system| system.filesystem_type() != TMPFS_MAGIC)
}
