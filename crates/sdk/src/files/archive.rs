//! Whole directories, in and out, each as one tar stream.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::{Buf, Bytes, BytesMut};
use futures::TryStreamExt;
use reqwest::{Body, Method, header};
use tokio::sync::mpsc;

use super::Files;
use crate::{
    Error, Result,
    transport::{Call, Retry},
};

/// Bytes handed over between the archive and the network at once.
const PIECE: usize = 256 << 10;
/// Such pieces that may wait.
const WAITING: usize = 4;
/// Longest time a directory may take to go up: a stream tells no size.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(6 * 3600);

/// How far the transfer of a directory is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes of the archive that have gone over.
    pub bytes: u64,
    /// Files and directories that have been begun.
    pub entries: u64,
}

/// Counts, and tells whoever asked.
struct Meter<F> {
    bytes: AtomicU64,
    entries: AtomicU64,
    tell: F,
}

impl<F: Fn(Progress)> Meter<F> {
    fn new(tell: F) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicU64::new(0), entries: AtomicU64::new(0), tell })
    }

    fn add(&self, bytes: u64, entries: u64) {
        let bytes = self.bytes.fetch_add(bytes, Relaxed) + bytes;
        let entries = self.entries.fetch_add(entries, Relaxed) + entries;
        (self.tell)(Progress { bytes, entries });
    }

    fn entries(&self) -> u64 {
        self.entries.load(Relaxed)
    }
}

fn local(operation: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Io { operation, source }
}

impl Files {
    /// Copies a directory into the sandbox with all that is in it. What is at `remote` stays unless the directory has
    /// the same name; the daemon puts everything in place only once it has come whole. Links stay links; modes and
    /// times are kept, owners are not; sockets are left out. Gives how many entries there were.
    ///
    /// ```no_run
    /// # async fn f(files: opensandbox::Files) -> opensandbox::Result<()> {
    /// files.upload_dir("./project", "/srv/project", |so_far| eprintln!("{} bytes", so_far.bytes)).await?;
    /// # Ok(()) }
    /// ```
    pub async fn upload_dir(
        &self,
        local_dir: impl AsRef<Path>,
        remote: &str,
        progress: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Result<u64> {
        const OPERATION: &str = "upload directory";
        let root = local_dir.as_ref().to_owned();
        if !tokio::fs::metadata(&root).await.map_err(local(OPERATION))?.is_dir() {
            return Err(Error::invalid(format!("{OPERATION}: {} is not a directory", root.display())));
        }
        // The address must be known to be good before the body, which can be sent once, goes there.
        self.execd.ping(self.execd.call(OPERATION, Retry::Idempotent).timeout).await?;
        let meter = Meter::new(progress);
        let (pieces, received) = mpsc::channel::<io::Result<Bytes>>(WAITING);
        let counted = Arc::clone(&meter);
        let packing = tokio::task::spawn_blocking(move || {
            let errors = pieces.clone();
            let mut out = Out { pieces, piece: BytesMut::new() };
            let packed = pack(&root, &mut out, &|| counted.add(0, 1)).and_then(|()| out.flush());
            if let Err(error) = &packed {
                // A body that breaks off lets the daemon drop what has come.
                let _ = errors.blocking_send(Err(io::Error::new(error.kind(), error.to_string())));
            }
            packed
        });
        let body = futures::stream::unfold((received, Arc::clone(&meter)), async |(mut received, meter)| {
            let piece = received.recv().await?;
            if let Ok(bytes) = &piece {
                meter.add(bytes.len() as u64, 0);
            }
            Some((piece, (received, meter)))
        });
        let body = parking_lot::Mutex::new(Some(Body::wrap_stream(body)));
        let call = Call { timeout: LONGEST, ..self.execd.streaming(OPERATION, Retry::Never) };
        let sent = self
            .execd
            .send(call, Method::POST, "/directories/archive", |request| {
                let body = body.lock().take().unwrap_or_default();
                request.query(&[("path", remote)]).header(header::CONTENT_TYPE, "application/x-tar").body(body)
            })
            .await;
        // What is wrong on this side says more than that the body broke off.
        drop(body);
        match packing.await {
            Ok(Err(source)) if source.kind() != io::ErrorKind::BrokenPipe => {
                return Err(Error::Io { operation: OPERATION, source });
            }
            _ => {}
        }
        sent?;
        Ok(meter.entries())
    }

    /// Copies a directory out of the sandbox with all that is in it, into `local_dir`, which is made; files of the same
    /// name are replaced. When it fails, a part may have been written. Nothing is written outside `local_dir`. Gives
    /// how many entries there were.
    ///
    /// ```no_run
    /// # async fn f(files: opensandbox::Files) -> opensandbox::Result<()> {
    /// files.download_dir("/srv/results", "./results", |_| {}).await?;
    /// # Ok(()) }
    /// ```
    pub async fn download_dir(
        &self,
        remote: &str,
        local_dir: impl AsRef<Path>,
        progress: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Result<u64> {
        const OPERATION: &str = "download directory";
        let target: PathBuf = local_dir.as_ref().to_owned();
        let call = self.execd.streaming(OPERATION, Retry::Idempotent);
        let answer =
            self.execd.send(call, Method::GET, "/directories/archive", |r| r.query(&[("path", remote)])).await?;
        let mut chunks = answer.chunks(self.execd.stream_idle_timeout());
        let meter = Meter::new(progress);
        let (pieces, received) = mpsc::channel(WAITING);
        let counted = Arc::clone(&meter);
        let unpacking = tokio::task::spawn_blocking(move || {
            unpack(In { pieces: received, piece: Bytes::new() }, &target, &|| counted.add(0, 1))
        });
        let mut broken = None;
        loop {
            match chunks.try_next().await {
                Ok(Some(bytes)) => {
                    meter.add(bytes.len() as u64, 0);
                    if pieces.send(Ok(bytes)).await.is_err() {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    // The reader must not take it for the end of the archive.
                    let _ = pieces.send(Err(io::Error::other("the stream broke"))).await;
                    broken = Some(error);
                    break;
                }
            }
        }
        drop(pieces);
        let unpacked = unpacking.await.map_err(|e| local(OPERATION)(io::Error::other(e)))?;
        match broken {
            Some(error) => Err(error),
            None => unpacked.map_err(local(OPERATION)).map(|()| meter.entries()),
        }
    }
}

struct Out {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    piece: BytesMut,
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.pieces.blocking_send(Ok(self.piece.split().freeze())).map_err(gone)
    }
}

struct In {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for In {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let count = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

fn pack(root: &Path, out: &mut Out, entry_begins: &dyn Fn()) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    let mut builder = tar::Builder::new(out);
    builder.follow_symlinks(false);
    for entry in
        walkdir::WalkDir::new(root).min_depth(1).follow_links(false).follow_root_links(true).sort_by_file_name()
    {
        let entry = entry?;
        if entry.file_type().is_socket() {
            continue;
        }
        entry_begins();
        let name = entry.path().strip_prefix(root).unwrap_or(entry.path());
        builder.append_path_with_name(entry.path(), name)?;
    }
    builder.finish()
}

fn unpack(from: In, target: &Path, entry_begins: &dyn Fn()) -> io::Result<()> {
    std::fs::create_dir_all(target)?;
    let mut archive = tar::Archive::new(from);
    archive.set_preserve_mtime(true);
    // Directories last and the deepest first: one that may not be written is still filled.
    let mut directories = Vec::new();
    let outside = |path: &Path| io::Error::other(format!("{} lies outside the directory", path.display()));
    for entry in archive.entries()? {
        let mut entry = entry?;
        entry_begins();
        if entry.header().entry_type() == tar::EntryType::Directory {
            directories.push(entry);
        } else if !entry.unpack_in(target)? {
            return Err(outside(&entry.path()?));
        }
    }
    directories.sort_by(|a, b| b.path_bytes().cmp(&a.path_bytes()));
    for mut entry in directories {
        if !entry.unpack_in(target)? {
            return Err(outside(&entry.path()?));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive whose entries are (name, link it is or none).
    fn archive(entries: &[(&str, Option<&str>)]) -> In {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, link) in entries {
            let mut header = tar::Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_mode(0o4755);
            header.set_size(if link.is_some() || name.ends_with('/') { 0 } else { 4 });
            match link {
                Some(to) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_link_name(to).unwrap();
                }
                None if name.ends_with('/') => header.set_entry_type(tar::EntryType::Directory),
                None => header.set_entry_type(tar::EntryType::Regular),
            }
            header.set_cksum();
            let content: &[u8] = if header.size().unwrap() == 0 { b"" } else { b"evil" };
            builder.append(&header, content).unwrap();
        }
        let (sender, pieces) = mpsc::channel(1);
        drop(sender);
        In { pieces, piece: builder.into_inner().unwrap().into() }
    }

    #[test]
    fn a_hostile_sandbox_writes_nothing_outside() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let target = home.path().join("target");
        let outside = home.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        let to = outside.to_str().unwrap();
        for entries in [
            &[("../outside/x", None)][..],
            &[("l", Some(to)), ("l/x", None)],
            &[("l", Some(to)), ("l/x/", None)],
            &[("../outside/x/", None)],
        ] {
            assert!(unpack(archive(entries), &target, &|| {}).is_err(), "{entries:?}");
            assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "{entries:?}");
        }
        unpack(archive(&[("d/", None), ("d/f", None)]), &target, &|| {}).unwrap();
        let mode = std::fs::metadata(target.join("d/f")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755, "what would run with its owner's rights does not");
    }
}
