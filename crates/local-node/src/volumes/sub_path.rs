//! `subPath`: a part of a volume. Whatever is in the volume was written by containers, links out of it included.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, mkdirat};

/// A relative path that does not climb.
pub(super) fn check(path: &str) -> Result<PathBuf, String> {
    let mut out = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::CurDir => {}
            _ => return Err(format!("the path {path:?} must be relative and must not contain `..`")),
        }
    }
    if out.as_os_str().is_empty() { Err(format!("the path {path:?} names nothing")) } else { Ok(out) }
}

/// Binds a part of a volume to `target`, which is made. A part that is missing becomes a directory. No link on the way
/// leads out of the volume, and none can be slipped in between: what was opened is what is bound.
///
/// For a process in a mount namespace of its own; the mount goes with that.
pub fn bind_sub_path(volume: &Path, sub_path: &Path, target: &Path) -> io::Result<()> {
    let part = open(volume, sub_path)?;
    let source = format!("/proc/self/fd/{}", part.as_raw_fd());
    if fs::metadata(&source)?.is_dir() {
        fs::create_dir_all(target)?;
    } else {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::OpenOptions::new().create(true).append(true).open(target)?;
    }
    Ok(mount(Some(source.as_str()), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?)
}

fn open(volume: &Path, sub_path: &Path) -> io::Result<OwnedFd> {
    let root = openat(AT_FDCWD, volume, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    // Links within the volume are followed, as volumes of ConfigMaps are made of them.
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match openat2(&root, sub_path, how) {
        Ok(part) => return Ok(part),
        Err(Errno::ENOENT) => {}
        Err(Errno::EXDEV | Errno::ELOOP) => {
            return Err(io::Error::other(format!("subPath {} leads out of its volume", sub_path.display())));
        }
        Err(errno) => return Err(errno.into()),
    }
    let (mut parent, mut so_far) = (root.try_clone()?, PathBuf::new());
    for part in sub_path.components() {
        so_far.push(part);
        parent = match openat2(&root, &so_far, how) {
            Err(Errno::ENOENT) => {
                mkdirat(&parent, part.as_os_str(), Mode::from_bits_truncate(0o755))?;
                openat2(&root, &so_far, how)?
            }
            other => other?,
        };
    }
    Ok(parent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn paths_that_climb_are_refused() {
        assert_eq!(check("a/./b").unwrap(), Path::new("a/b"));
        for path in ["", ".", "/a", "..", "a/../b"] {
            assert!(check(path).is_err(), "{path}");
        }
    }

    #[test]
    fn links_out_of_the_volume_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        fs::create_dir_all(volume.join("real")).unwrap();
        fs::write(volume.join("real/file"), "inside").unwrap();
        symlink("/etc", volume.join("absolute")).unwrap();
        symlink("../..", volume.join("up")).unwrap();
        symlink("real", volume.join("within")).unwrap();
        for path in ["absolute", "absolute/passwd", "up", "up/x"] {
            assert!(open(&volume, Path::new(path)).is_err(), "{path}");
        }
        let part = open(&volume, Path::new("within/file")).unwrap();
        assert_eq!(fs::read(format!("/proc/self/fd/{}", part.as_raw_fd())).unwrap(), b"inside");
        open(&volume, Path::new("new/deep")).unwrap();
        assert!(volume.join("new/deep").is_dir());
    }
}
