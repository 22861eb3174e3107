//! Owner, mode, moves, removals and replacements of text.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use api_types::execd::Permission;

use super::atomic;
use super::info;
use super::sparse::SparseWriter;
use crate::users::Users;

/// Largest file whose text is replaced: it is held in memory.
pub const REPLACE_LIMIT: u64 = 64 << 20;

/// Owner and mode to set, as numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ownership {
    /// Mode with special bits.
    pub mode: Option<u32>,
    /// User.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

impl Ownership {
    /// Reads what the wire says. Mode 0 and empty names are none.
    ///
    /// # Errors
    /// Which of them can't be.
    pub fn of(permission: &Permission, users: &Users) -> Result<Self, String> {
        let mode = permission.mode.filter(|mode| *mode != 0);
        let mode =
            mode.map(|m| info::mode(m).ok_or_else(|| format!("mode {m} is not made of one to four octal digits")));
        let given = |name: &Option<String>| name.clone().filter(|n| !n.is_empty());
        let uid = given(&permission.owner).map(|n| users.uid_of(&n).ok_or_else(|| format!("there is no user {n:?}")));
        let gid = given(&permission.group).map(|n| users.gid_of(&n).ok_or_else(|| format!("there is no group {n:?}")));
        Ok(Self { mode: mode.transpose()?, uid: uid.transpose()?, gid: gid.transpose()? })
    }

    /// Sets them: the owner first, for a change of owner clears the special bits.
    ///
    /// # Errors
    /// The path is not there, or may not be changed.
    pub fn apply(&self, path: &Path) -> io::Result<()> {
        if self.uid.is_some() || self.gid.is_some() {
            std::os::unix::fs::chown(path, self.uid, self.gid)?;
        }
        if let Some(mode) = self.mode {
            atomic::set_mode(path, mode)?;
        }
        Ok(())
    }
}

/// Moves a file or directory to a path where nothing is; its parents are made.
///
/// # Errors
/// The source is missing, the destination exists, or the system refuses.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::symlink_metadata(from)?;
    if std::fs::symlink_metadata(to).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "destination path already exists"));
    }
    if let Some(parent) = to.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    match std::fs::rename(from, to) {
        // A plain file moves between file systems by copy; of a directory half could be left behind.
        Err(e) if e.kind() == io::ErrorKind::CrossesDevices && std::fs::symlink_metadata(from)?.is_file() => {
            let (replacement, file) = atomic::Replacement::begin(to)?;
            let mut source = std::fs::File::open(from)?;
            let meta = source.metadata()?;
            copy_sparse(&mut source, file)?;
            let keep = std::os::unix::fs::MetadataExt::mode(&meta) & 0o7777;
            replacement.finish(&Ownership { mode: Some(keep), ..Ownership::default() })?;
            std::fs::remove_file(from)
        }
        result => result,
    }
}

fn copy_sparse(from: &mut std::fs::File, to: std::fs::File) -> io::Result<()> {
    let (mut writer, mut buffer) = (SparseWriter::new(to), vec![0; 256 << 10]);
    loop {
        match io::Read::read(from, &mut buffer)? {
            0 => break,
            count => writer.write(buffer.get(..count).unwrap_or_default())?,
        }
    }
    writer.finish().map(|_| ())
}

/// Removes a file or link; a missing one is fine.
///
/// # Errors
/// It is a directory, or may not be removed.
pub fn remove_file(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(()),
        Err(e) => Err(e),
        Ok(meta) if meta.is_dir() => Err(io::Error::new(io::ErrorKind::IsADirectory, "path is a directory")),
        Ok(_) => std::fs::remove_file(path),
    }
}

/// Removes a directory with all that is in it, or a file; a missing one is fine.
///
/// # Errors
/// It is the root, or may not be removed.
pub fn remove_all(path: &Path) -> io::Result<()> {
    if path == Path::new("/") {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the root directory is not removed"));
    }
    match std::fs::symlink_metadata(path) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(()),
        Err(e) => Err(e),
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
    }
}

/// Makes a directory with its parents; owner and mode are set only if it is new.
///
/// # Errors
/// It can't be made.
pub fn make_directory(path: &Path, ownership: &Ownership) -> io::Result<()> {
    if std::fs::metadata(path).is_ok_and(|meta| meta.is_dir()) {
        return Ok(());
    }
    std::fs::create_dir_all(path)?;
    ownership.apply(path)
}

/// Prepares to replace every occurrence of a text in a file: how many there are, and the new file beside
/// the old one. Without any the file is not touched.
///
/// # Errors
/// It is missing, too large, or can't be written.
pub fn prepare(path: &Path, old: &str, new: &str) -> io::Result<(u64, Option<atomic::Replacement>)> {
    let meta = std::fs::metadata(path)?;
    if meta.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "path is a directory"));
    }
    if meta.len() > REPLACE_LIMIT {
        let text = format!("it is larger than the {REPLACE_LIMIT} bytes in which text is replaced");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    let (bytes, count) = substitute(&std::fs::read(path)?, old.as_bytes(), new.as_bytes());
    if count == 0 {
        return Ok((0, None));
    }
    let (replacement, mut file) = atomic::Replacement::begin(path)?;
    io::Write::write_all(&mut file, &bytes)?;
    Ok((count, Some(replacement)))
}

fn substitute(text: &[u8], old: &[u8], new: &[u8]) -> (Vec<u8>, u64) {
    let (mut out, mut rest, mut count) = (Vec::with_capacity(text.len()), text, 0);
    while !rest.is_empty() {
        if !old.is_empty() && rest.starts_with(old) {
            out.extend_from_slice(new);
            rest = rest.get(old.len()..).unwrap_or_default();
            count += 1;
        } else {
            // On to the next place where it may begin.
            let next = rest.iter().skip(1).position(|b| Some(b) == old.first()).map_or(rest.len(), |at| at + 1);
            let (before, after) = rest.split_at(next);
            out.extend_from_slice(before);
            rest = after;
        }
    }
    (out, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn occurrences_do_not_overlap() {
        for (text, old, new, want, count) in [
            ("aaaa", "aa", "b", "bb", 2),
            ("xaay", "a", "", "xy", 2),
            ("abcabc", "bc", "BCD", "aBCDaBCD", 2),
            ("none", "x", "y", "none", 0),
            ("ababac", "abac", "!", "ab!", 1),
        ] {
            assert_eq!(substitute(text.as_bytes(), old.as_bytes(), new.as_bytes()), (want.as_bytes().to_vec(), count));
        }
    }

    #[test]
    fn a_dangling_link_is_removed_itself() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("l");
        std::os::unix::fs::symlink("/no/such", &link).unwrap();
        remove_file(&link).unwrap();
        assert!(std::fs::symlink_metadata(&link).is_err());
        remove_file(&link).unwrap();
        assert!(remove_file(dir.path()).is_err());
        assert!(remove_all(Path::new("/")).is_err());
    }

    #[test]
    fn a_move_never_overwrites() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("new/b"));
        std::fs::write(&a, "x").unwrap();
        rename(&a, &b).unwrap();
        std::fs::write(&a, "y").unwrap();
        assert_eq!(rename(&a, &b).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(rename(&dir.path().join("no"), &a).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(std::fs::read(&b).unwrap(), b"x");
    }

    #[test]
    fn numbers_are_owners_too() {
        let users = Users::parse("root:x:0:0::/root:/bin/sh\n", "");
        let permission = |mode, owner: &str| Permission { mode: Some(mode), owner: Some(owner.into()), group: None };
        assert_eq!(
            Ownership::of(&permission(644, "0"), &users).unwrap(),
            Ownership { mode: Some(0o644), uid: Some(0), gid: None }
        );
        assert!(Ownership::of(&permission(0, "nobody-here"), &users).is_err());
        assert!(Ownership::of(&permission(999, ""), &users).is_err());
    }
}
