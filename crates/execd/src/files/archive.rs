//! A directory as one tar stream, out and in. What comes in is unpacked beside its place and put there
//! only when it is whole.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use tar::{Archive, Builder, EntryType, Header};

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It is none, was cut off, or has what none may have.
    #[error("the archive: {0}")]
    Archive(String),
    /// The system refuses.
    #[error(transparent)]
    System(io::Error),
}

/// Writes a directory as a tar stream; names are below it, links are kept as links.
///
/// # Errors
/// Something can't be read, or nobody takes the stream.
pub fn pack(root: &Path, out: impl Write) -> io::Result<()> {
    let mut builder = Builder::new(out);
    builder.follow_symlinks(false);
    for entry in
        walkdir::WalkDir::new(root).min_depth(1).follow_links(false).follow_root_links(true).sort_by_file_name()
    {
        // What vanishes meanwhile is not in it.
        let Ok(entry) = entry else { continue };
        let Ok(meta) = entry.metadata() else { continue };
        let name = entry.path().strip_prefix(root).unwrap_or(entry.path());
        if meta.file_type().is_socket() {
            continue;
        }
        let sparse = meta.blocks().saturating_mul(512) < meta.len();
        if meta.is_file() && !sparse {
            let file = match File::open(entry.path()) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            let mut header = Header::new_gnu();
            header.set_metadata(&meta);
            header.set_size(meta.len());
            // A file that grows or shrinks meanwhile must not break what follows it.
            builder.append_data(&mut header, name, file.chain(io::repeat(0)).take(meta.len()))?;
        } else {
            builder.append_path_with_name(entry.path(), name)?;
        }
    }
    builder.into_inner()?.flush()
}

/// A directory in the making; gone when dropped.
struct Beside(PathBuf);

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Unpacks a tar stream into a directory; it is made if it is missing, else what is in it stays unless the
/// archive has the same name. How many entries there were.
///
/// # Errors
/// See [`ArchiveError`]; the directory is as it was then.
pub fn unpack(from: impl Read, target: &Path) -> Result<u64, ArchiveError> {
    let system = ArchiveError::System;
    let parent = target.parent().ok_or_else(|| system(io::Error::from(io::ErrorKind::InvalidInput)))?;
    match std::fs::metadata(target) {
        Ok(meta) if !meta.is_dir() => return Err(system(io::Error::from(io::ErrorKind::NotADirectory))),
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => std::fs::create_dir_all(parent).map_err(system)?,
        Err(e) => return Err(system(e)),
    }
    let beside = Beside(parent.join(format!(".osb-{}", uuid::Uuid::new_v4().simple())));
    std::fs::create_dir(&beside.0).map_err(system)?;
    let mut archive = Archive::new(from);
    archive.set_preserve_permissions(true);
    archive.set_preserve_mtime(true);
    archive.set_preserve_ownerships(false);
    let mut count = 0;
    let broken = |e: io::Error| ArchiveError::Archive(e.to_string());
    // Directories last and the deepest first: one that may not be written is still filled.
    let mut directories = Vec::new();
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let name = entry.path().map_err(broken)?.display().to_string();
        if matches!(entry.header().entry_type(), EntryType::Char | EntryType::Block) {
            return Err(ArchiveError::Archive(format!("{name} is a device")));
        }
        count += 1;
        if entry.header().entry_type() == EntryType::Directory {
            directories.push(entry);
            continue;
        }
        inside(entry.unpack_in(&beside.0), &name)?;
    }
    directories.sort_by(|a, b| b.path_bytes().cmp(&a.path_bytes()));
    for mut entry in directories {
        let name = entry.path().map_err(broken)?.display().to_string();
        inside(entry.unpack_in(&beside.0), &name)?;
    }
    settle(beside, target).map_err(system)?;
    Ok(count)
}

fn inside(unpacked: io::Result<bool>, name: &str) -> Result<(), ArchiveError> {
    match unpacked {
        Ok(true) => Ok(()),
        Ok(false) => Err(ArchiveError::Archive(format!("{name} lies outside"))),
        Err(e) => match system_reason(&e) {
            Some(kind) => Err(ArchiveError::System(io::Error::new(kind, e.to_string()))),
            None => Err(ArchiveError::Archive(format!("{name}: {e}"))),
        },
    }
}

/// The system's reason inside the archive reader's own words, where it is one of the disk's.
fn system_reason(error: &io::Error) -> Option<io::ErrorKind> {
    let mut at: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = at {
        if let Some(kind) = error.downcast_ref::<io::Error>().map(io::Error::kind)
            && matches!(
                kind,
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::PermissionDenied
            )
        {
            return Some(kind);
        }
        at = error.source();
    }
    None
}

/// Puts what was unpacked into its place.
fn settle(beside: Beside, target: &Path) -> io::Result<()> {
    if std::fs::symlink_metadata(target).is_err() {
        return std::fs::rename(&beside.0, target);
    }
    let all: Vec<_> = walkdir::WalkDir::new(&beside.0).min_depth(1).into_iter().collect::<Result<_, _>>()?;
    let place = |entry: &walkdir::DirEntry| target.join(entry.path().strip_prefix(&beside.0).unwrap_or(entry.path()));
    for entry in &all {
        let there = std::fs::symlink_metadata(place(entry));
        if there.is_ok_and(|there| there.is_dir() != entry.file_type().is_dir()) {
            let text = format!("{} is a directory on one side only", place(entry).display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
    }
    for entry in &all {
        let place = place(entry);
        if !entry.file_type().is_dir() {
            std::fs::rename(entry.path(), &place)?;
        } else if !place.is_dir() {
            std::fs::create_dir(&place)?;
            std::fs::set_permissions(&place, entry.metadata()?.permissions())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let walk = walkdir::WalkDir::new(dir).min_depth(1).sort_by_file_name();
        walk.into_iter().map(|e| e.unwrap().path().strip_prefix(dir).unwrap().display().to_string()).collect()
    }

    fn sample(dir: &Path) {
        std::fs::create_dir_all(dir.join("a/deep")).unwrap();
        std::fs::write(dir.join("a/é.txt"), "text").unwrap();
        std::fs::write(dir.join(format!("a/{}", "n".repeat(200))), "long").unwrap();
        std::fs::set_permissions(dir.join("a/é.txt"), std::fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("é.txt", dir.join("a/link")).unwrap();
        let hole = File::create(dir.join("hole")).unwrap();
        hole.set_len(8 << 20).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.join("socket")).unwrap();
        std::fs::set_permissions(dir.join("a/deep"), std::fs::Permissions::from_mode(0o500)).unwrap();
    }

    #[test]
    fn out_and_in_again() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        sample(from.path());
        let mut bytes = Vec::new();
        pack(from.path(), &mut bytes).unwrap();
        assert!(bytes.len() < 1 << 20, "holes are not written out");
        let target = to.path().join("new/place");
        unpack(bytes.as_slice(), &target).unwrap();
        let mut want = names(from.path());
        want.retain(|name| name != "socket");
        assert_eq!(names(&target), want);
        assert_eq!(std::fs::read(target.join("a/é.txt")).unwrap(), b"text");
        assert_eq!(std::fs::metadata(target.join("a/é.txt")).unwrap().mode() & 0o777, 0o640);
        assert_eq!(std::fs::metadata(target.join("a/deep")).unwrap().mode() & 0o777, 0o500);
        assert_eq!(std::fs::metadata(target.join("hole")).unwrap().len(), 8 << 20);
        assert_eq!(std::fs::read_link(target.join("a/link")).unwrap(), Path::new("é.txt"));
        // Over what is there.
        std::fs::write(target.join("own"), "mine").unwrap();
        std::fs::write(target.join("a/é.txt"), "changed").unwrap();
        unpack(bytes.as_slice(), &target).unwrap();
        assert_eq!(std::fs::read(target.join("a/é.txt")).unwrap(), b"text");
        assert_eq!(std::fs::read(target.join("own")).unwrap(), b"mine");
        assert_eq!(names(to.path()).iter().filter(|n| n.contains(".osb-")).count(), 0);
    }

    #[test]
    fn one_that_is_cut_off_leaves_nothing() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(from.path().join("a"), vec![7; 10_000]).unwrap();
        std::fs::write(from.path().join("b"), vec![8; 10_000]).unwrap();
        let mut bytes = Vec::new();
        pack(from.path(), &mut bytes).unwrap();
        for cut in [1, 600, 6000, 11_000, 15_000] {
            let error = unpack(&bytes[..cut], &to.path().join("x"));
            assert!(matches!(error, Err(ArchiveError::Archive(_))), "{cut}: {error:?}");
            assert_eq!(names(to.path()), Vec::<String>::new(), "{cut}");
        }
    }

    #[test]
    fn nothing_climbs_out() {
        let to = tempfile::tempdir().unwrap();
        let secret = to.path().join("secret");
        std::fs::write(&secret, "kept").unwrap();
        let with = |make: &dyn Fn(&mut Builder<Vec<u8>>)| {
            let mut builder = Builder::new(Vec::new());
            make(&mut builder);
            builder.into_inner().unwrap()
        };
        let put = |builder: &mut Builder<Vec<u8>>, kind: EntryType, name: &str, link: Option<&str>| {
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(0o777);
            header.set_size(if kind == EntryType::Regular { 4 } else { 0 });
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            if let Some(link) = link {
                header.set_link_name(link).unwrap();
            }
            header.set_cksum();
            builder.append(&header, if kind == EntryType::Regular { &b"evil"[..] } else { &b""[..] }).unwrap();
        };
        let climbing = with(&|b| put(b, EntryType::Regular, "../secret", None));
        assert!(unpack(climbing.as_slice(), &to.path().join("x")).is_err());
        let through = with(&|b| {
            put(b, EntryType::Symlink, "l", Some(to.path().to_str().unwrap()));
            put(b, EntryType::Regular, "l/secret", None);
        });
        assert!(unpack(through.as_slice(), &to.path().join("x")).is_err());
        let device = with(&|b| put(b, EntryType::Char, "null", None));
        assert!(unpack(device.as_slice(), &to.path().join("x")).is_err());
        assert_eq!(std::fs::read(&secret).unwrap(), b"kept");
        assert_eq!(names(to.path()), ["secret"]);
    }
}
