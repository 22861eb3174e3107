//! Files that change while the server runs: certificates and keys. Directories are watched, not files, because kubelet
//! replaces a mounted Secret by swapping a symbolic link beside it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{Config, PollWatcher, RecommendedWatcher, RecursiveMode, Watcher};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Where the system can't tell of changes, files are looked at this often.
const LOOK: Duration = Duration::from_secs(30);
/// A change is often several events; the last of them counts.
const SETTLE: Duration = Duration::from_millis(100);

/// Calls `changed` after each change of what is in the files, until `stop`.
pub fn watch(files: Vec<PathBuf>, stop: CancellationToken, mut changed: impl FnMut() + Send + 'static) {
    // One place: an event more or less makes no difference.
    let (tell, mut told) = mpsc::channel(1);
    let Some(watcher) = watcher(&files, tell) else {
        return;
    };
    tokio::spawn(async move {
        let _watcher = watcher;
        let mut known = contents(&files);
        loop {
            tokio::select! {
                news = told.recv() => if news.is_none() { return },
                () = stop.cancelled() => return,
            }
            tokio::time::sleep(SETTLE).await;
            while told.try_recv().is_ok() {}
            // Other files of the directory may change as often as they like.
            let now = contents(&files);
            if now != known {
                known = now;
                changed();
            }
        }
    });
}

/// A digest of each file; nothing for one that can't be read just now.
fn contents(files: &[PathBuf]) -> Vec<Option<[u8; 32]>> {
    files.iter().map(|file| std::fs::read(file).ok().map(|bytes| Sha256::digest(bytes).into())).collect()
}

fn watcher(files: &[PathBuf], tell: mpsc::Sender<()>) -> Option<Box<dyn Watcher + Send>> {
    let handler = move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _ = tell.try_send(());
        }
    };
    let made = RecommendedWatcher::new(handler.clone(), Config::default())
        .map(|watcher| Box::new(watcher) as Box<dyn Watcher + Send>)
        .or_else(|error| {
            tracing::warn!(%error, "the system can't tell of changed files; they are looked at every {LOOK:?}");
            let config = Config::default().with_poll_interval(LOOK).with_compare_contents(true);
            PollWatcher::new(handler, config).map(|watcher| Box::new(watcher) as Box<dyn Watcher + Send>)
        });
    let mut watcher = made.inspect_err(|error| tracing::warn!(%error, "changed files go unnoticed")).ok()?;
    let mut directories: Vec<&Path> = files.iter().filter_map(|file| file.parent()).collect();
    directories.sort_unstable();
    directories.dedup();
    for directory in directories {
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive) {
            tracing::warn!(%error, directory = %directory.display(), "changed files go unnoticed");
        }
    }
    Some(watcher)
}
