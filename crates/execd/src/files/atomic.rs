//! Replacing a file as a whole: written beside it under another name, then renamed over it. Whoever
//! reads sees the old bytes or the new ones, and nothing is left when it does not come to the end.

use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::change::Ownership;

/// A file in the making.
pub struct Replacement {
    target: PathBuf,
    temporary: PathBuf,
    /// What stands there now; its mode and owner are kept where none are given.
    former: Option<std::fs::Metadata>,
    finished: bool,
}

impl Replacement {
    /// Begins one. A link is followed, so that what it points to is replaced.
    ///
    /// # Errors
    /// The target is a directory or no regular file, or its directory can't be written.
    pub fn begin(path: &Path) -> io::Result<(Self, std::fs::File)> {
        let target = resolve(path)?;
        let former = match std::fs::symlink_metadata(&target) {
            Ok(meta) if meta.is_dir() => return Err(io::Error::from(io::ErrorKind::IsADirectory)),
            Ok(meta) if !meta.is_file() => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
            }
            Ok(meta) => Some(meta),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        let parent = target.parent().ok_or_else(|| io::Error::from(io::ErrorKind::IsADirectory))?;
        std::fs::create_dir_all(parent)?;
        // Short, so that a name of the greatest length still has room beside it.
        let temporary = parent.join(format!(".osb-{}", uuid::Uuid::new_v4().simple()));
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o777)
            .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC)
            .open(&temporary)?;
        Ok((Self { target, temporary, former, finished: false }, file))
    }

    /// Sets owner and mode, and puts the file in its place.
    ///
    /// # Errors
    /// One of these can't be done; the former file stays then.
    pub fn finish(mut self, ownership: &Ownership) -> io::Result<()> {
        let mut wanted = ownership.clone();
        if let Some(former) = &self.former {
            wanted.mode = wanted.mode.or(Some(former.mode() & 0o7777));
            // Only root may give a file away; a thread may act as somebody else.
            if crate::sys::filesystem_user() == 0 {
                wanted.uid = wanted.uid.or(Some(former.uid()));
                wanted.gid = wanted.gid.or(Some(former.gid()));
            }
        }
        wanted.apply(&self.temporary)?;
        match std::fs::rename(&self.temporary, &self.target) {
            Ok(()) => {
                self.finished = true;
                Ok(())
            }
            // A file that is itself a mount point, such as /etc/hosts, can only be written through.
            Err(e) if e.raw_os_error() == Some(nix::libc::EBUSY) => write_through(&self.temporary, &self.target),
            Err(e) => Err(e),
        }
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.finished {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

fn write_through(from: &Path, to: &Path) -> io::Result<()> {
    let mut from = std::fs::File::open(from)?;
    let mut to = std::fs::OpenOptions::new().write(true).truncate(true).open(to)?;
    io::copy(&mut from, &mut to).map(|_| ())
}

/// The path behind a chain of links; the last need not exist.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut at = path.to_owned();
    for _ in 0..40 {
        match std::fs::read_link(&at) {
            Ok(to) => at = at.parent().unwrap_or(Path::new("/")).join(to),
            Err(_) => return Ok(at),
        }
    }
    Err(io::Error::from_raw_os_error(nix::libc::ELOOP))
}

/// Sets the mode of a path, special bits too.
///
/// # Errors
/// It can't be set.
pub fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn nothing_is_left_of_one_that_was_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "old").unwrap();
        let (replacement, mut file) = Replacement::begin(&path).unwrap();
        file.write_all(b"half").unwrap();
        drop(replacement);
        assert_eq!(names(dir.path()), ["f"]);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
    }

    #[test]
    fn mode_is_kept_and_a_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "old").unwrap();
        set_mode(&path, 0o640).unwrap();
        std::os::unix::fs::symlink("f", dir.path().join("link")).unwrap();
        let (replacement, mut file) = Replacement::begin(&dir.path().join("link")).unwrap();
        file.write_all(b"new").unwrap();
        replacement.finish(&Ownership::default()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        assert!(std::fs::symlink_metadata(dir.path().join("link")).unwrap().is_symlink());
    }

    #[test]
    fn a_directory_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let error = Replacement::begin(dir.path()).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
    }
}
