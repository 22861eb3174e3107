//! A container's log: one file a run, a line for each line of output with its time and stream, bounded in size.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::proto::LogSettings;

/// Longest piece of a line that is written at once; a longer line becomes several entries flagged `P`.
const MAX_LINE: usize = 16 * 1024;
/// How much of the end of the output is remembered for a termination message.
const TAIL: usize = 2 * 1024;
/// Most lines of it.
const TAIL_LINES: usize = 80;

/// Which of a container's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The open log of one container run.
pub struct LogWriter {
    settings: LogSettings,
    file: File,
    size: u64,
    partial: [Vec<u8>; 2],
    tail: Vec<u8>,
}

impl LogWriter {
    /// Creates the log file, and its directory.
    pub fn create(settings: LogSettings) -> io::Result<Self> {
        if let Some(dir) = settings.path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let file = open(&settings.path)?;
        let size = file.metadata()?.len();
        Ok(Self { settings, file, size, partial: [Vec::new(), Vec::new()], tail: Vec::new() })
    }

    /// Writes output that arrived at `now`. Output is dropped rather than the container stopped when the disk is full.
    pub fn write(&mut self, stream: Stream, bytes: &[u8], now: Timestamp) {
        self.tail.extend_from_slice(bytes);
        if self.tail.len() > 2 * TAIL {
            self.tail.drain(..self.tail.len() - TAIL);
        }
        let mut entries = Vec::with_capacity(bytes.len() + 64);
        let mut pending = std::mem::take(&mut self.partial[stream as usize]);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            pending.extend_from_slice(piece);
            while pending.len() > MAX_LINE + 1 {
                let rest = pending.split_off(MAX_LINE);
                entry(&mut entries, stream, &pending, false, now);
                pending = rest;
            }
            if pending.last() == Some(&b'\n') {
                pending.pop();
                entry(&mut entries, stream, &pending, true, now);
                pending.clear();
            }
        }
        self.partial[stream as usize] = pending;
        self.append(&entries);
    }

    /// Writes what is left of unfinished lines.
    pub fn finish(&mut self, now: Timestamp) {
        let mut entries = Vec::new();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let pending = std::mem::take(&mut self.partial[stream as usize]);
            if !pending.is_empty() {
                // A last line without its newline is still told as a whole line, as Kubernetes' readers expect an end.
                entry(&mut entries, stream, &pending, true, now);
            }
        }
        self.append(&entries);
    }

    /// The end of the output: so many bytes, and of them so many lines.
    pub fn tail(&self) -> String {
        let end = &self.tail[self.tail.len().saturating_sub(TAIL)..];
        let lines: Vec<&[u8]> = end.split_inclusive(|byte| *byte == b'\n').collect();
        let kept = lines[lines.len().saturating_sub(TAIL_LINES)..].concat();
        String::from_utf8_lossy(&kept).into_owned()
    }

    fn append(&mut self, entries: &[u8]) {
        if entries.is_empty() {
            return;
        }
        if self.size > 0 && self.size + entries.len() as u64 > self.settings.max_bytes {
            self.rotate();
        }
        if self.file.write_all(entries).is_ok() {
            self.size += entries.len() as u64;
        }
    }

    fn rotate(&mut self) {
        let kept = self.settings.max_files.max(1);
        for index in (1..kept.saturating_sub(1)).rev() {
            let _ = std::fs::rename(rotated(&self.settings.path, index), rotated(&self.settings.path, index + 1));
        }
        let moved = if kept > 1 {
            std::fs::rename(&self.settings.path, rotated(&self.settings.path, 1))
        } else {
            std::fs::remove_file(&self.settings.path)
        };
        if moved.is_ok()
            && let Ok(file) = open(&self.settings.path)
        {
            self.file = file;
            self.size = 0;
        }
    }
}

/// The name of the `index`-th older file of a log; 0 is the current one.
pub fn rotated(path: &Path, index: u32) -> PathBuf {
    if index == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{index}"));
    PathBuf::from(name)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).custom_flags(nix::libc::O_CLOEXEC).open(path)
}

fn entry(out: &mut Vec<u8>, stream: Stream, line: &[u8], whole: bool, now: Timestamp) {
    let name = match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    let flag = if whole { 'F' } else { 'P' };
    let _ = write!(out, "{now:.9} {name} {flag} ");
    out.extend_from_slice(line);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(dir: &Path, max_bytes: u64, max_files: u32) -> LogWriter {
        LogWriter::create(LogSettings { path: dir.join("c/0.log"), max_bytes, max_files }).unwrap()
    }

    fn text(path: PathBuf) -> String {
        std::fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn lines_are_joined_across_reads_and_told_by_stream() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = writer(dir.path(), 1 << 20, 2);
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        log.write(Stream::Stdout, b"he", now);
        log.write(Stream::Stderr, b"oops\n", now);
        log.write(Stream::Stdout, b"llo\n\nlast", now);
        log.finish(now);
        let at = "2023-11-14T22:13:20.000000000Z";
        assert_eq!(
            text(dir.path().join("c/0.log")),
            format!("{at} stderr F oops\n{at} stdout F hello\n{at} stdout F \n{at} stdout F last\n")
        );
    }

    #[test]
    fn long_lines_are_split_and_files_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = writer(dir.path(), 40_000, 3);
        let now = Timestamp::UNIX_EPOCH;
        log.write(Stream::Stdout, &[b'x'; 20_000], now);
        log.write(Stream::Stdout, b"\n", now);
        let first = text(dir.path().join("c/0.log"));
        assert_eq!(first.lines().map(|l| l.split(' ').nth(2).unwrap()).collect::<Vec<_>>(), ["P", "F"]);
        for _ in 0..8 {
            log.write(Stream::Stdout, &[b"y".repeat(16_000), b"\n".to_vec()].concat(), now);
        }
        let files: Vec<u64> = (0..4)
            .filter_map(|i| std::fs::metadata(rotated(&dir.path().join("c/0.log"), i)).ok())
            .map(|m| m.len())
            .collect();
        assert_eq!(files.len(), 3);
        assert!(files.iter().all(|size| *size <= 40_000), "{files:?}");
    }
}
