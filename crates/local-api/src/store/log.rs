//! The durable form of the store: an append log of checksummed records, rewritten when most of it is stale.
//!
//! A record is in the file (in the kernel's hands) before its write is acknowledged, so no acknowledged write is
//! lost with the process. A background thread brings it to the disk within [`SYNC_EVERY`]; a machine that
//! loses power keeps a consistent prefix. See `docs/design/0002-local-api.md`.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;

use super::{Key, Stored};

const MAGIC: &[u8; 8] = b"OSBLOG1\n";
const SYNC_EVERY: Duration = Duration::from_millis(50);
/// No record may claim more: the largest request body is 3 MiB.
const MAX_RECORD: usize = 64 << 20;

/// Why a directory could not be opened as a store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses it.
    #[error("{0} is in use by another process")]
    Locked(PathBuf),
    /// The file is not a store's log, or of another version.
    #[error("{0} is not a log of this version")]
    Foreign(PathBuf),
    /// The system refused.
    #[error("cannot use {path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

fn io_at(path: &Path) -> impl FnOnce(std::io::Error) -> OpenError + '_ {
    move |source| OpenError::Io { path: path.to_owned(), source }
}

/// What compaction hands over between its thread and the writers.
#[derive(Default)]
struct Rewrite {
    /// Records appended since the rewrite began, to be copied behind it.
    tail: Vec<u8>,
    /// The new file, once everything but the tail is in it.
    done: Option<std::io::Result<(File, u64)>>,
}

pub(super) struct Log {
    path: PathBuf,
    file: Arc<File>,
    length: u64,
    /// Length after the last rewrite; the next comes when it has grown fourfold.
    base: u64,
    /// Below this size it is never rewritten.
    compact_from: u64,
    rewrite: Option<Arc<Mutex<Rewrite>>>,
    /// An append failed and could not be undone: the file's end is unknown.
    broken: bool,
    sync: SyncSender<Arc<File>>,
    /// Held for as long as the log is open.
    _lock: File,
}

impl Log {
    /// Opens or makes the log and replays it into `apply`.
    pub(super) fn open(
        directory: &Path,
        compact_from: u64,
        mut apply: impl FnMut(u64, Key, Option<Value>),
    ) -> Result<Self, OpenError> {
        std::fs::create_dir_all(directory).map_err(io_at(directory))?;
        let lock_path = directory.join("lock");
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path).map_err(io_at(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(directory.to_owned())),
            Err(TryLockError::Error(source)) => return Err(OpenError::Io { path: lock_path, source }),
        }
        let path = directory.join("objects.log");
        let _ = std::fs::remove_file(path.with_extension("new"));
        let mut file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).map_err(io_at(&path))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io_at(&path))?;
        if bytes.len() < MAGIC.len() {
            file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(MAGIC)).map_err(io_at(&path))?;
            bytes = MAGIC.to_vec();
        } else if !bytes.starts_with(MAGIC) {
            return Err(OpenError::Foreign(path));
        }
        let mut at = MAGIC.len();
        while let Some((record, next)) = next_record(&bytes, at) {
            let Some((rv, key, value)) = decode(record) else { return Err(OpenError::Foreign(path)) };
            apply(rv, key, value);
            at = next;
        }
        let length = at as u64;
        if at < bytes.len() {
            tracing::warn!(lost = bytes.len() - at, "the store's log ends in an unfinished record, which is dropped");
            file.set_len(length).map_err(io_at(&path))?;
        }
        file.seek(SeekFrom::Start(length)).map_err(io_at(&path))?;
        let (sync, work) = sync_channel(1);
        std::thread::Builder::new()
            .name("store-sync".into())
            .spawn(move || sync_loop(&work))
            .map_err(io_at(directory))?;
        let file = Arc::new(file);
        Ok(Self { path, file, length, base: length, compact_from, rewrite: None, broken: false, sync, _lock: lock })
    }

    /// Appends one record; on failure the file is as before.
    pub(super) fn append(&mut self, rv: u64, key: &Key, value: Option<&[u8]>) -> std::io::Result<()> {
        if self.broken {
            return Err(std::io::Error::other("an earlier failure left the log unusable, restart the cluster"));
        }
        self.adopt_rewrite();
        let record = encode_record(rv, key, value);
        let mut file: &File = &self.file;
        if let Err(error) = file.write_all(&record) {
            let undone = file.set_len(self.length).and_then(|()| file.seek(SeekFrom::Start(self.length)));
            self.broken = undone.is_err();
            return Err(error);
        }
        self.length += record.len() as u64;
        if let Some(rewrite) = &self.rewrite {
            rewrite.lock().tail.extend_from_slice(&record);
        }
        // A full channel means that a sync which covers this record is still to come.
        let _ = self.sync.try_send(self.file.clone());
        Ok(())
    }

    pub(super) fn handle(&self) -> Arc<File> {
        self.file.clone()
    }

    pub(super) fn wants_compaction(&self) -> bool {
        self.rewrite.is_none() && !self.broken && self.length > self.compact_from && self.length / 4 > self.base
    }

    /// Starts writing `live` to a new file in a thread; writers go on meanwhile.
    pub(super) fn compact(&mut self, rv: u64, live: Vec<(Key, Arc<Stored>)>) {
        let shared = Arc::new(Mutex::new(Rewrite::default()));
        let (path, report) = (self.path.with_extension("new"), shared.clone());
        let spawned = std::thread::Builder::new().name("store-compact".into()).spawn(move || {
            let result = write_snapshot(&path, rv, &live);
            report.lock().done = Some(result);
        });
        if spawned.is_ok() {
            self.rewrite = Some(shared);
        }
    }

    /// Swaps in a finished rewrite.
    fn adopt_rewrite(&mut self) {
        let Some(shared) = self.rewrite.clone() else { return };
        let mut rewrite = shared.lock();
        let Some(done) = rewrite.done.take() else { return };
        self.rewrite = None;
        let tail = std::mem::take(&mut rewrite.tail);
        let new_path = self.path.with_extension("new");
        let swapped = done.and_then(|(mut file, length)| {
            file.write_all(&tail)?;
            file.sync_data()?;
            std::fs::rename(&new_path, &self.path)?;
            Ok((file, length + tail.len() as u64))
        });
        match swapped {
            Ok((file, length)) => {
                self.file = Arc::new(file);
                self.length = length;
                self.base = length;
                if let Some(directory) = self.path.parent() {
                    let _ = File::open(directory).and_then(|d| d.sync_all());
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the store's log could not be rewritten; it goes on growing");
                let _ = std::fs::remove_file(&new_path);
                self.base = self.length;
            }
        }
    }
}

fn write_snapshot(path: &Path, rv: u64, live: &[(Key, Arc<Stored>)]) -> std::io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
    let mut out = std::io::BufWriter::with_capacity(1 << 20, &file);
    out.write_all(MAGIC)?;
    let mut length = MAGIC.len() as u64;
    for (key, stored) in live {
        let record = encode_record(stored.rv, key, Some(stored.json()));
        out.write_all(&record)?;
        length += record.len() as u64;
    }
    // A removal of nothing carries the counter, so that it never goes back.
    let counter = encode_record(rv, &Key::new(&"".into(), "", ""), None);
    out.write_all(&counter)?;
    length += counter.len() as u64;
    out.flush()?;
    drop(out);
    file.sync_data()?;
    Ok((file, length))
}

/// `length u32, crc u32, rv u64, kind u8, three lengths u16, table, namespace, name, JSON`, little endian.
fn encode_record(rv: u64, key: &Key, value: Option<&[u8]>) -> Vec<u8> {
    let names = [&key.table, &key.namespace, &key.name];
    let body = value.unwrap_or_default();
    let mut out = Vec::with_capacity(32 + names.iter().map(|n| n.len()).sum::<usize>() + body.len());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&rv.to_le_bytes());
    out.push(u8::from(value.is_some()));
    for name in names {
        // Names are at most 253 characters; what is longer has been refused before.
        out.extend_from_slice(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes());
    }
    for name in names {
        out.extend_from_slice(name.as_bytes());
    }
    out.extend_from_slice(body);
    let length = u32::try_from(out.len() - 8).unwrap_or(u32::MAX);
    let crc = crc32fast::hash(&out[8..]);
    out[..4].copy_from_slice(&length.to_le_bytes());
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    out
}

fn next_record(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let head = bytes.get(at..at + 8)?;
    let length = u32::from_le_bytes(head[..4].try_into().ok()?) as usize;
    let crc = u32::from_le_bytes(head[4..].try_into().ok()?);
    if length > MAX_RECORD {
        return None;
    }
    let record = bytes.get(at + 8..at + 8 + length)?;
    (crc32fast::hash(record) == crc).then_some((record, at + 8 + length))
}

fn decode(record: &[u8]) -> Option<(u64, Key, Option<Value>)> {
    let rv = u64::from_le_bytes(record.get(..8)?.try_into().ok()?);
    let present = *record.get(8)? == 1;
    let mut at = 15;
    let mut names = [""; 3];
    for (index, name) in names.iter_mut().enumerate() {
        let head = record.get(9 + 2 * index..11 + 2 * index)?;
        let length = usize::from(u16::from_le_bytes(head.try_into().ok()?));
        *name = std::str::from_utf8(record.get(at..at + length)?).ok()?;
        at += length;
    }
    let key = Key::new(&names[0].into(), names[1], names[2]);
    let value = if present { Some(serde_json::from_slice(record.get(at..)?).ok()?) } else { None };
    Some((rv, key, value))
}

fn sync_loop(work: &Receiver<Arc<File>>) {
    while let Ok(mut file) = work.recv() {
        // Collect what arrives meanwhile: one sync covers all of it.
        let collected = std::time::Instant::now();
        while let Ok(newer) = work.recv_timeout(SYNC_EVERY.saturating_sub(collected.elapsed())) {
            file = newer;
        }
        if let Err(error) = file.sync_data()
            && error.kind() != ErrorKind::Interrupted
        {
            tracing::error!(%error, "the store's log could not be brought to the disk");
        }
    }
}
