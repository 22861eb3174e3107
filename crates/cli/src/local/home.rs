//! The platform's directory: what lies where, and who holds it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Pid;

/// Names another directory for the platform.
pub const HOME_VARIABLE: &str = "OSB_HOME";

/// The platform's directory.
#[derive(Debug, Clone)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// The directory that the environment names, or the usual one.
    pub fn from_environment() -> Self {
        match std::env::var_os(HOME_VARIABLE) {
            Some(root) if !root.is_empty() => Self { root: root.into() },
            _ => Self { root: PathBuf::from("/var/lib/opensandbox") },
        }
    }

    /// This directory.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Objects of the Kubernetes API.
    pub fn api(&self) -> PathBuf {
        self.root.join("api")
    }

    /// Pods, images and network of the node.
    pub fn node(&self) -> PathBuf {
        self.root.join("node")
    }

    /// Certificates and token of the Kubernetes API.
    pub fn identity(&self) -> PathBuf {
        self.root.join("tls")
    }

    /// The node's image store.
    pub fn images(&self) -> PathBuf {
        self.node().join("images")
    }

    /// Secrets of the platform.
    pub fn keys(&self) -> PathBuf {
        self.root.join("keys.json")
    }

    /// Address and key for the SDK and `osb`.
    pub fn connection(&self) -> PathBuf {
        self.root.join("connection.toml")
    }

    /// Address and credentials for kubectl.
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// What a detached platform writes.
    pub fn log(&self) -> PathBuf {
        self.root.join("osb.log")
    }

    fn lock_file(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Makes the directory, for its owner alone.
    pub fn create(&self) -> Result<()> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.root)
            .with_context(|| format!("cannot make the platform's directory {}", self.root.display()))
    }

    /// Takes the directory for this process, until the lock is dropped.
    pub fn lock(&self) -> Result<HomeLock> {
        let file = self.open_lock()?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                lock.set_len(0)?;
                lock.seek(SeekFrom::Start(0))?;
                write!(lock, "{}", std::process::id())?;
                Ok(HomeLock { _lock: lock })
            }
            Err((_, Errno::EWOULDBLOCK)) => {
                let holder = self.holder().map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
                bail!(
                    "a platform already runs from {} ({holder}); look at it with `osb status`, end it with `osb down`",
                    self.root.display()
                )
            }
            Err((_, errno)) => Err(errno).context("cannot lock the platform's directory"),
        }
    }

    /// The process that holds the directory now.
    pub fn holder(&self) -> Option<Pid> {
        let mut file = File::open(self.lock_file()).ok()?;
        let mut text = String::new();
        file.read_to_string(&mut text).ok()?;
        // A shared lock that can be had means that nobody holds the exclusive one.
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(_) => None,
            Err(_) => text.trim().parse().ok().map(Pid::from_raw),
        }
    }

    /// Waits until nobody holds the directory. `false` when the time is over.
    pub fn wait_unheld(&self, limit: Duration) -> Result<bool> {
        let file = self.open_lock()?;
        let (done, wait) = mpsc::channel();
        // The lock call itself can't be given a deadline, so a thread that dies with us makes it.
        std::thread::spawn(move || {
            let lock = Flock::lock(file, FlockArg::LockExclusive);
            let unheld = lock.is_ok();
            // Given back before it is told: whoever waits takes it next.
            drop(lock);
            let _ = done.send(unheld);
        });
        Ok(wait.recv_timeout(limit).unwrap_or(false))
    }

    fn open_lock(&self) -> Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.lock_file())
            .with_context(|| format!("cannot open {}", self.lock_file().display()))
    }

    /// Writes a file that only its owner may read, so that a reader finds the old or the new text whole.
    pub fn write_secret(&self, path: &Path, text: &str) -> Result<()> {
        let staged = path.with_extension("new");
        let write = || -> std::io::Result<()> {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&staged)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&staged, path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The platform's directory, held.
#[derive(Debug)]
pub struct HomeLock {
    _lock: Flock<File>,
}

/// Ends with what to run instead when this process is not root.
pub fn require_root(verb: &str) -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    bail!(
        "osb {verb} makes containers and networks, which needs root; run: sudo --preserve-env=OSB_HOME {} {verb}",
        std::env::current_exe().map_or_else(|_| "osb".into(), |p| p.display().to_string())
    )
}
