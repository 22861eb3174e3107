//! A task's output on disk: appended, rotated once, never more than twice its limit.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What one read takes at most.
const CHUNK: usize = 64 << 10;

/// One stream's file and the one before it.
pub struct Output {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    limit: u64,
    lost: u64,
}

impl Output {
    /// Opens it for appending; `limit` bytes make a file full.
    pub fn open(path: &Path, limit: u64) -> Self {
        let file = append(path).ok();
        let size = file.as_ref().and_then(|f| f.metadata().ok()).map_or(0, |m| m.len());
        Self { path: path.to_owned(), file, size, limit, lost: 0 }
    }

    /// Appends. What can't be kept is counted.
    pub fn write(&mut self, bytes: &[u8]) {
        if self.size + bytes.len() as u64 > self.limit && self.size > 0 {
            self.rotate();
        }
        let written = self.file.as_mut().is_some_and(|f| f.write_all(bytes).is_ok());
        if written {
            self.size += bytes.len() as u64;
        } else {
            self.lost += bytes.len() as u64;
        }
    }

    fn rotate(&mut self) {
        let older = older(&self.path);
        self.lost += fs::metadata(&older).map_or(0, |m| m.len());
        if fs::rename(&self.path, &older).is_err() {
            return;
        }
        self.file = append(&self.path).ok();
        self.size = 0;
        if self.lost > 0 {
            let marker = format!("[{} earlier bytes of this stream are lost]\n", self.lost);
            if self.file.as_mut().is_some_and(|f| f.write_all(marker.as_bytes()).is_ok()) {
                self.size = marker.len() as u64;
            }
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// The file before the current one.
fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// Reads what a pipe holds now, at most `rounds` chunks; whether it is closed.
pub fn drain(pipe: &mut impl Read, output: &mut Output, rounds: usize) -> bool {
    let mut chunk = vec![0; CHUNK];
    for _ in 0..rounds {
        match pipe.read(&mut chunk) {
            Ok(0) => return true,
            Ok(n) => output.write(chunk.get(..n).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
        }
    }
    false
}

/// The last bytes of a task's output: standard error, or standard output where that is empty.
pub fn tail(dir: &Path, max: u64) -> Option<String> {
    use std::io::{Seek, SeekFrom};
    [super::STDERR, super::STDOUT].iter().find_map(|name| {
        let mut file = File::open(dir.join(name)).ok()?;
        let size = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(max))).ok()?;
        let mut bytes = Vec::new();
        file.take(max).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        (!text.is_empty()).then_some(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_are_kept_and_the_lost_ones_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdout.log");
        let mut output = Output::open(&path, 10);
        for chunk in ["aaaaaaaa", "bbbbbbbb", "cccccccc"] {
            output.write(chunk.as_bytes());
        }
        assert_eq!(fs::read_to_string(older(&path)).unwrap(), "bbbbbbbb");
        let now = fs::read_to_string(&path).unwrap();
        assert_eq!(now, "[8 earlier bytes of this stream are lost]\ncccccccc");
        assert_eq!(tail(dir.path(), 4).unwrap(), "cccc");
    }

    #[test]
    fn appending_goes_on_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        Output::open(&path, 100).write(b"one");
        Output::open(&path, 100).write(b"two");
        assert_eq!(fs::read_to_string(&path).unwrap(), "onetwo");
    }
}
