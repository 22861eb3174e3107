//! Files of the executor: durable replacement, names of task directories, records.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use api_types::tasks::{ProcessStatus, Task};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// File of a task's record in its directory.
const RECORD: &str = "task.json";
/// Longest name of a task.
const NAME_MAX: usize = 253;

/// Replaces a file as a whole; `durable` waits until it would survive a power failure.
pub fn replace(path: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    if durable {
        file.sync_data()?;
    }
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(dir) if durable => File::open(dir)?.sync_all(),
        _ => Ok(()),
    }
}

/// Makes a directory that only its owner may enter.
pub fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// What a task is to the executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// Set by a caller of the task API.
    Task,
    /// Brought by a claim.
    Entrypoint,
}

/// Who runs a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Runner {
    /// Nobody yet.
    Undecided,
    /// A supervisor of ours.
    Local,
    /// execd, under this secret name.
    Execd {
        /// See `TaskHandOver::handle`.
        handle: String,
        /// Whether execd has said that it took the task.
        taken: bool,
    },
}

/// Everything the executor knows of a task that its supervisor does not write itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The task as it was asked for; its status is kept apart.
    pub task: Task,
    /// What it is.
    pub role: Role,
    /// When it came.
    pub created_at: Timestamp,
    /// Who runs it.
    pub runner: Runner,
    /// Its end, where no supervisor keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<ProcessStatus>,
}

impl Record {
    /// Name of the task's directory, and its key.
    pub fn key(&self) -> String {
        key(self.role, &self.task.name)
    }

    /// Reads a record.
    pub fn read(dir: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(dir.join(RECORD))?)?)
    }

    /// Writes it. It need not survive the machine's end, which ends the task too; a result must.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        private_dir(dir)?;
        replace(&dir.join(RECORD), &serde_json::to_vec(self)?, self.ended.is_some())
    }
}

/// Why a name is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is empty.
    #[error("name is empty")]
    Empty,
    /// It is longer than a Kubernetes name may be.
    #[error("name is longer than {NAME_MAX} bytes")]
    TooLong,
    /// It climbs out of its directory, or could be taken for something else.
    #[error("name {0:?} must be no path that climbs out, no JSON, and without control characters")]
    Unsafe(String),
}

/// Checks a name. A slash is allowed; what climbs or could be read as a signed body of another call is not.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > NAME_MAX {
        return Err(NameError::TooLong);
    }
    let climbs = name.starts_with('/') || name.split('/').any(|part| part == ".." || part == "." || part.is_empty());
    let is_json = name == "null" || name.starts_with(['[', '{', ' ']);
    if climbs || is_json || name.chars().any(char::is_control) {
        return Err(NameError::Unsafe(name.to_owned()));
    }
    Ok(())
}

/// A plain name stays readable, any other becomes its hash; the prefix keeps the kinds apart.
pub fn key(role: Role, name: &str) -> String {
    let plain = name.len() <= 128 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    match role {
        Role::Entrypoint => format!("e.{name}"),
        Role::Task if plain => format!("n.{name}"),
        Role::Task => {
            let hex: String = Sha256::digest(name.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
            format!("h.{hex}")
        }
    }
}

/// The directory of all tasks, held by one executor at a time.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    _lock: File,
}

/// Why the directory of tasks can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It can't be made or written.
    #[error(
        "the data directory {path} can't be used: {source}; mount a writable volume there or choose another with --data-dir"
    )]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another executor uses it.
    #[error("another task-executor uses {0}")]
    InUse(PathBuf),
}

impl Store {
    /// Opens the directory and proves that it can be written.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let refused = |source| StoreError::NotWritable { path: dir.to_owned(), source };
        private_dir(dir).map_err(refused)?;
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(dir.join(".lock"));
        let lock = lock.map_err(refused)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(StoreError::InUse(dir.to_owned())),
            Err(fs::TryLockError::Error(error)) => return Err(refused(error)),
        }
        replace(&dir.join(".test"), b"writable", false).map_err(refused)?;
        fs::remove_file(dir.join(".test")).map_err(refused)?;
        Ok(Self { dir: dir.to_owned(), _lock: lock })
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Directory of one task.
    pub fn task_dir(&self, key: &str) -> PathBuf {
        self.dir.join(key)
    }

    /// Every record that can be read, oldest first. What can't be is told, and left for a person to see.
    pub fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if !path.is_dir() {
                continue;
            }
            match Record::read(&path) {
                Ok(record) if path == self.task_dir(&record.key()) => records.push(record),
                Ok(_) => {
                    tracing::warn!(path = %path.display(), "the record of another task lies here; it is passed over");
                }
                // The executor died before the record was written: nothing was started.
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.remove(&path),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "this record can't be read; it is passed over");
                }
            }
        }
        records.sort_by_key(|r: &Record| r.created_at);
        records
    }

    /// Removes a task's directory.
    pub fn remove(&self, path: &Path) {
        if let Err(error) = fs::remove_dir_all(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a task's directory can't be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_climb_or_look_like_bodies_are_refused() {
        for name in ["", "../x", "a/../b", "/a", "a//b", "a/", ".", "[]", "null", "{\"x\":1}", "a\nb", "a\0b"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        assert!(check_name(&"x".repeat(254)).is_err());
        for name in ["bs-0", "a/b", "ä", "a b", ".hidden"] {
            assert_eq!(check_name(name), Ok(()), "{name:?}");
        }
    }

    #[test]
    fn keys_are_plain_file_names_and_never_meet() {
        let names = ["bs-0", "a/b", "ä", "a b", ".hidden", "entrypoint"];
        let mut keys: Vec<String> = names.iter().map(|n| key(Role::Task, n)).collect();
        keys.push(key(Role::Entrypoint, "entrypoint"));
        assert!(keys.iter().all(|k| !k.contains('/') && !k.starts_with('.') && k.len() < 200));
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), names.len() + 1);
        assert_eq!(key(Role::Task, "bs-0"), "n.bs-0");
    }

    #[test]
    fn one_executor_holds_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = Store::open(dir.path()).unwrap();
        assert!(matches!(Store::open(dir.path()), Err(StoreError::InUse(_))));
        drop(first);
        Store::open(dir.path()).unwrap();
    }

    #[test]
    fn a_torn_record_is_passed_over_and_an_empty_directory_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        fs::create_dir(dir.path().join("n.empty")).unwrap();
        fs::create_dir(dir.path().join("n.torn")).unwrap();
        fs::write(dir.path().join("n.torn/task.json"), b"{").unwrap();
        assert!(store.records().is_empty());
        assert!(!dir.path().join("n.empty").exists() && dir.path().join("n.torn").exists());
    }
}
