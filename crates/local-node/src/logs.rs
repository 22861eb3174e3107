//! Reads containers' logs: from the end or the beginning, by age, as they grow.

use std::io::{self, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use local_api::streams::LogOptions;
use tokio::fs::File;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;

use crate::shim::log::rotated;
use crate::sys;

/// Pieces that may wait for a slow reader.
const QUEUE: usize = 16;
/// How much is read at once.
const PIECE: usize = 64 * 1024;

/// The log file of one run of a container.
pub fn path(pod_dir: &Path, container: &str, attempt: u32) -> PathBuf {
    pod_dir.join("logs").join(container).join(format!("{attempt}.log"))
}

/// Cuts entries by age, format and number of bytes.
struct Filter {
    timestamps: bool,
    since: Option<Timestamp>,
    left: Option<u64>,
    /// The entry before did not end its line.
    continued: bool,
}

impl Filter {
    fn new(options: &LogOptions, now: Timestamp) -> Self {
        Self {
            timestamps: options.timestamps,
            since: options
                .since_seconds
                .map(|seconds| now - SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX / 4))),
            left: options.limit_bytes,
            continued: false,
        }
    }

    /// Adds what is to be sent of one entry; false when no more is wanted.
    fn push(&mut self, entry: &[u8], out: &mut Vec<u8>) -> bool {
        let Some((time, whole, text)) = parse(entry) else { return true };
        if let Some(since) = self.since
            && std::str::from_utf8(time).ok().and_then(|t| t.parse::<Timestamp>().ok()).is_some_and(|t| t < since)
        {
            return true;
        }
        let begin = out.len();
        if self.timestamps && !self.continued {
            out.extend_from_slice(time);
            out.push(b' ');
        }
        out.extend_from_slice(text);
        if whole {
            out.push(b'\n');
        }
        self.continued = !whole;
        if let Some(left) = &mut self.left {
            let added = (out.len() - begin) as u64;
            out.truncate(begin + added.min(*left) as usize);
            *left -= added.min(*left);
            return *left > 0;
        }
        true
    }
}

/// Time, whether the line ends here, text.
fn parse(entry: &[u8]) -> Option<(&[u8], bool, &[u8])> {
    let mut parts = entry.splitn(4, |byte| *byte == b' ');
    let (time, _stream, flag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    Some((time, flag == b"F", text))
}

/// Sends a log's bytes until its end, or with `follow` until `over` resolves and all has been sent.
pub fn read(
    file: PathBuf,
    options: LogOptions,
    over: impl Future<Output = ()> + Send + 'static,
) -> mpsc::Receiver<io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        if let Err(error) = copy(&file, &options, &sender, over).await {
            let _ = sender.send(Err(error)).await;
        }
    });
    receiver
}

async fn copy(
    path: &Path,
    options: &LogOptions,
    sender: &mpsc::Sender<io::Result<Bytes>>,
    over: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let mut filter = Filter::new(options, Timestamp::now());
    // The watch is there before the first byte is read: what is written in between is not missed.
    let watch = if options.follow { Some(Watch::new(path)?) } else { None };
    let files = files(path).await;
    let mut skip = match options.tail_lines {
        Some(lines) => count(&files).await?.saturating_sub(lines),
        None => 0,
    };
    let mut rest = Vec::new();
    let mut current = None;
    for name in &files {
        let mut file = File::open(name).await?;
        if !drain(&mut file, &mut rest, &mut filter, &mut skip, sender).await? {
            return Ok(());
        }
        current = Some(file);
    }
    let (Some(mut watch), Some(mut file)) = (watch, current) else { return Ok(()) };
    tokio::pin!(over);
    let mut last = false;
    loop {
        if !drain(&mut file, &mut rest, &mut filter, &mut skip, sender).await? {
            return Ok(());
        }
        if rotated_away(path, &file).await {
            let mut next = File::open(path).await?;
            next.seek(SeekFrom::Start(0)).await?;
            file = next;
            continue;
        }
        if last {
            return Ok(());
        }
        tokio::select! {
            () = &mut over => last = true,
            () = sender.closed() => return Ok(()),
            changed = watch.changed() => changed?,
        }
    }
}

/// The log's files, oldest first.
async fn files(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for index in 0.. {
        let name = rotated(path, index);
        if tokio::fs::metadata(&name).await.is_err() {
            break;
        }
        found.push(name);
    }
    found.reverse();
    found
}

async fn rotated_away(path: &Path, file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (tokio::fs::metadata(path).await, file.metadata().await) {
        (Ok(named), Ok(open)) => named.ino() != open.ino(),
        _ => false,
    }
}

/// Lines in all files.
async fn count(files: &[PathBuf]) -> io::Result<u64> {
    let mut lines = 0;
    let mut buffer = vec![0u8; PIECE];
    for name in files {
        let mut file = File::open(name).await?;
        let mut rest: Vec<u8> = Vec::new();
        loop {
            let read = file.read(&mut buffer).await?;
            if read == 0 {
                break;
            }
            rest.extend_from_slice(&buffer[..read]);
            let end = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            for entry in rest[..end].split(|byte| *byte == b'\n') {
                lines += u64::from(parse(entry).is_some_and(|(_, whole, _)| whole));
            }
            rest.drain(..end);
        }
    }
    Ok(lines)
}

/// Sends what a file still has; false when no more is wanted.
async fn drain(
    file: &mut File,
    rest: &mut Vec<u8>,
    filter: &mut Filter,
    skip: &mut u64,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<bool> {
    let mut buffer = vec![0u8; PIECE];
    loop {
        let read = file.read(&mut buffer).await?;
        if read == 0 {
            return Ok(true);
        }
        rest.extend_from_slice(&buffer[..read]);
        let end = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let mut out = Vec::new();
        let mut more = true;
        for entry in rest[..end].split(|byte| *byte == b'\n').filter(|entry| !entry.is_empty()) {
            if *skip > 0 {
                *skip -= u64::from(parse(entry).is_some_and(|(_, whole, _)| whole));
                continue;
            }
            more = filter.push(entry, &mut out);
            if !more {
                break;
            }
        }
        rest.drain(..end);
        if !out.is_empty() && sender.send(Ok(Bytes::from(out))).await.is_err() {
            return Ok(false);
        }
        if !more {
            return Ok(false);
        }
    }
}

/// Tells when a log grows or is rotated.
struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    fn new(path: &Path) -> io::Result<Self> {
        use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let dir = path.parent().unwrap_or(Path::new("/"));
        inotify.add_watch(dir, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO)?;
        Ok(Self(sys::watched(inotify.as_fd().try_clone_to_owned()?)?))
    }

    async fn changed(&mut self) -> io::Result<()> {
        let mut ready = self.0.readable_mut().await?;
        // What has changed is found by reading the log; the records only say that something has.
        let mut records = [0u8; 4096];
        while nix::unistd::read(ready.get_inner(), &mut records).is_ok_and(|count| count > 0) {}
        ready.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> LogOptions {
        LogOptions { container: "c".into(), ..LogOptions::default() }
    }

    async fn all(path: &Path, options: LogOptions) -> String {
        let mut pieces = read(path.to_owned(), options, std::future::ready(()));
        let mut text = Vec::new();
        while let Some(piece) = pieces.recv().await {
            text.extend_from_slice(&piece.unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn logs_are_cut_by_lines_bytes_and_age() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let old = "2020-01-01T00:00:00.000000000Z";
        let new = "2999-01-01T00:00:00.000000000Z";
        std::fs::write(rotated(&path, 1), format!("{old} stdout F one\n")).unwrap();
        std::fs::write(&path, format!("{old} stdout P tw\n{old} stdout F o\n{new} stderr F three\n")).unwrap();
        assert_eq!(all(&path, options()).await, "one\ntwo\nthree\n");
        assert_eq!(all(&path, LogOptions { tail_lines: Some(2), ..options() }).await, "two\nthree\n");
        assert_eq!(all(&path, LogOptions { tail_lines: Some(0), ..options() }).await, "");
        assert_eq!(all(&path, LogOptions { limit_bytes: Some(6), ..options() }).await, "one\ntw");
        assert_eq!(all(&path, LogOptions { since_seconds: Some(60), ..options() }).await, "three\n");
        let stamped = all(&path, LogOptions { timestamps: true, tail_lines: Some(2), ..options() }).await;
        assert_eq!(stamped, format!("{old} two\n{new} three\n"));
    }

    #[tokio::test]
    async fn a_followed_log_ends_with_its_container() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, "2020-01-01T00:00:00Z stdout F one\n").unwrap();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let mut pieces = read(path.clone(), LogOptions { follow: true, ..options() }, async {
            let _ = ended.await;
        });
        assert_eq!(pieces.recv().await.unwrap().unwrap(), "one\n");
        use std::io::Write;
        let mut file = std::fs::File::options().append(true).open(&path).unwrap();
        file.write_all(b"2020-01-01T00:00:01Z stdout F two\n").unwrap();
        assert_eq!(pieces.recv().await.unwrap().unwrap(), "two\n");
        drop(end);
        assert!(pieces.recv().await.is_none());
    }
}
