//! File work in the name of another user: the kernel checks and owns by that user, on the one thread
//! that does the work.

use std::io;

use crate::sys;
use crate::users::Users;

/// A user, a group, and the groups beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Identity {
    /// Does the work as this user.
    ///
    /// # Errors
    /// The daemon is not root and not this user, so it can't.
    pub fn assume<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        let own = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        if own == (self.uid, self.gid) {
            return Ok(work());
        }
        let credentials = Users::load().credentials(self.uid, Some(self.gid));
        let _assumed = sys::assume(&credentials)?;
        Ok(work())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn the_kernel_checks_and_owns_by_that_user() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root to act as another user");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let other = Identity { uid: 54321, gid: 54322 };
        let path = dir.path().join("f");
        let refused = other.assume(|| std::fs::write(&path, "x")).unwrap();
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        other.assume(|| std::fs::write(&path, "x")).unwrap().unwrap();
        let meta = std::fs::metadata(&path).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (54321, 54322));
        std::fs::write(dir.path().join("root"), "x").unwrap();
        assert_eq!(std::fs::metadata(dir.path().join("root")).unwrap().uid(), 0, "and only for that work");
    }
}
