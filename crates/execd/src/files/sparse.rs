//! Writes a file front to back and leaves holes where there are only zeros.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Zeros of this many bytes, at a multiple of it, become a hole.
const BLOCK: usize = 64 << 10;

/// See the module.
pub struct SparseWriter {
    file: File,
    at: u64,
    /// Where the last hole ends that nothing was written after.
    hole: bool,
}

impl SparseWriter {
    /// A writer of an empty file.
    pub fn new(file: File) -> Self {
        Self { file, at: 0, hole: false }
    }

    /// Appends.
    ///
    /// # Errors
    /// The disk is full, or fails.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let in_block = usize::try_from(self.at % BLOCK as u64).unwrap_or(0);
            let (now, later) = rest.split_at(rest.len().min(BLOCK - in_block));
            self.hole = now.len() == BLOCK && is_zero(now);
            if !self.hole {
                self.file.write_all_at(now, self.at)?;
            }
            self.at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    /// Gives the file its length.
    ///
    /// # Errors
    /// It can't have that.
    pub fn finish(self) -> io::Result<u64> {
        if self.hole {
            self.file.set_len(self.at)?;
        }
        Ok(self.at)
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    // Mostly the first word says no.
    bytes.first() == Some(&0) && bytes.iter().all(|b| *b == 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn bytes_are_the_same_and_zeros_take_no_space() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut want = vec![1u8; 100];
        want.resize(1 << 20, 0);
        want.extend([2; 70_000]);
        want.resize(3 << 20, 0);
        for piece in [want.len(), 64 << 10, 7919] {
            let mut writer = SparseWriter::new(File::create(&path).unwrap());
            want.chunks(piece).for_each(|bytes| writer.write(bytes).unwrap());
            assert_eq!(writer.finish().unwrap(), want.len() as u64);
            assert!(std::fs::read(&path).unwrap() == want);
        }
        let mut writer = SparseWriter::new(File::create(&path).unwrap());
        writer.write(&want).unwrap();
        writer.finish().unwrap();
        assert!(std::fs::metadata(&path).unwrap().blocks() * 512 < 1 << 20);
    }
}
