//! Files of ConfigMaps, Secrets and the downward API: all of a volume changes at once.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use sha2::{Digest, Sha256};

/// A file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    /// Relative, does not climb.
    pub path: PathBuf,
    pub content: Vec<u8>,
    pub mode: u32,
}

/// The link that all names of the volume go through, as Kubernetes has it.
const CURRENT: &str = "..data";

/// A directory in memory for the pods of this directory; `None` where the machine has none.
pub(super) fn memory_dir(pods_dir: &Path) -> Option<PathBuf> {
    let in_memory = |dir: &&str| statfs(*dir).is_ok_and(|stat| stat.filesystem_type() == TMPFS_MAGIC);
    let parent = ["/run", "/dev/shm"].into_iter().find(in_memory)?;
    // Each cluster has its own, by where its pods are.
    let hash = Sha256::digest(pods_dir.as_os_str().as_encoded_bytes());
    let name: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    Some(Path::new(parent).join(format!("opensandbox-{name}")))
}

/// Makes a volume's directory; what is above it is root's alone.
fn make_dir(dir: &Path, mode: u32) -> io::Result<()> {
    if let Some(parent) = dir.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    match DirBuilder::new().mode(mode).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // The process' umask has no say.
        other => other.and_then(|()| fs::set_permissions(dir, Permissions::from_mode(mode))),
    }
}

/// An emptyDir, for everybody in the pod; one that is there keeps its content.
pub(super) fn empty_dir(dir: &Path, group: Option<u32>) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    make_dir(dir, 0o777)?;
    if let Some(group) = group {
        chown(dir, None, Some(group))?;
        fs::set_permissions(dir, Permissions::from_mode(0o2777))?;
    }
    Ok(())
}

/// Makes the volume hold exactly these files. Who reads sees all old or all new ones.
pub(super) fn update(dir: &Path, files: &[File], group: Option<u32>) -> io::Result<()> {
    make_dir(dir, 0o755)?;
    let mut hash = Sha256::new();
    for file in files {
        for part in [file.path.as_os_str().as_encoded_bytes(), &file.content, &file.mode.to_le_bytes()] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    let version: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let version = format!("..{version}");
    let old = fs::read_link(dir.join(CURRENT)).ok();
    if old.as_deref() == Some(Path::new(&version)) {
        return Ok(());
    }
    let fresh = dir.join(&version);
    match fs::remove_dir_all(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    make_dir(&fresh, 0o755)?;
    for file in files {
        let path = fresh.join(&file.path);
        if let Some(parent) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?
            .write_all(&file.content)?;
        // A group that the pod asked for may read what its owner may.
        let mode = if group.is_some() { file.mode | ((file.mode & 0o400) >> 3) } else { file.mode };
        if let Some(group) = group {
            chown(&path, None, Some(group))?;
        }
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
    }
    let next = dir.join("..data_tmp");
    let _ = fs::remove_file(&next);
    symlink(&version, &next)?;
    fs::rename(&next, dir.join(CURRENT))?;
    let names: BTreeSet<_> = files.iter().filter_map(|file| file.path.components().next()).collect();
    for name in &names {
        let link = dir.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(CURRENT).join(name), link)?;
        }
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let stale_version = entry.file_type()?.is_dir() && name != version.as_str();
        let stale_link =
            !name.to_string_lossy().starts_with("..") && !names.iter().any(|known| known.as_os_str() == name);
        if stale_version {
            fs::remove_dir_all(entry.path())?;
        } else if stale_link {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
