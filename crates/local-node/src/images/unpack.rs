//! A layer from its archive to a directory that overlayfs takes as a lower one.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, fchmod, fstatat, makedev, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};
use sha2::{Digest, Sha256};
use tar::{Entry, EntryType};

use super::error::{ImageError, io as io_error};
use super::host::hex;

/// What marks a deleted file, and a directory whose lower content is hidden.
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// How large a layer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the unpacked archive.
    pub bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 32 << 30, entries: 2_000_000 }
    }
}

/// What was unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unpacked {
    /// Digest of the archive before compression, in hexadecimal.
    pub diff_id: String,
    /// Digest of what was read, in hexadecimal.
    pub digest: String,
    /// Bytes of the archive before compression.
    pub size: u64,
}

/// Counts and digests what passes.
struct Measured<R> {
    inner: R,
    hash: Rc<RefCell<(Sha256, u64)>>,
    limit: u64,
}

impl<R: Read> Read for Measured<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let mut hash = self.hash.borrow_mut();
        hash.0.update(&buffer[..count]);
        hash.1 += count as u64;
        if hash.1 > self.limit {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        Ok(count)
    }
}

/// A reader that takes off gzip or zstd, whichever its first bytes tell.
pub(super) fn decompressed<'a>(mut reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut start = Vec::with_capacity(4);
    reader.by_ref().take(4).read_to_end(&mut start)?;
    let whole = io::Cursor::new(start.clone()).chain(reader);
    Ok(match start.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            let mut decoder = zstd::Decoder::new(whole)?;
            // 128 MiB, what `zstd --long` makes at most unless told otherwise.
            decoder.window_log_max(27)?;
            Box::new(decoder)
        }
        _ => Box::new(whole),
    })
}

/// Unpacks a layer, compressed or not, into an empty directory. `what` names it in errors.
pub(super) fn unpack(reader: impl Read, root: &Path, limits: Limits, what: &str) -> Result<Unpacked, ImageError> {
    let outer = Rc::new(RefCell::new((Sha256::new(), 0)));
    let inner = Rc::new(RefCell::new((Sha256::new(), 0)));
    let wrong = |error: io::Error| match error.kind() {
        io::ErrorKind::FileTooLarge => {
            ImageError::TooLarge { what: what.to_owned(), limit: format!("{} bytes", limits.bytes) }
        }
        io::ErrorKind::StorageFull | io::ErrorKind::PermissionDenied | io::ErrorKind::QuotaExceeded => {
            io_error(format!("unpack {what}"))(error)
        }
        _ => ImageError::corrupt(what, error),
    };
    let measured = Measured { inner: reader, hash: Rc::clone(&outer), limit: limits.bytes };
    let plain = decompressed(BufReader::with_capacity(256 * 1024, measured)).map_err(wrong)?;
    let mut plain = Measured { inner: plain, hash: Rc::clone(&inner), limit: limits.bytes };
    let mut layer = Layer::open(root).map_err(wrong)?;
    let mut archive = tar::Archive::new(&mut plain);
    let mut count = 0;
    for entry in archive.entries().map_err(wrong)? {
        count += 1;
        if count > limits.entries {
            return Err(ImageError::TooLarge { what: what.to_owned(), limit: format!("{} files", limits.entries) });
        }
        layer.add(&mut entry.map_err(wrong)?).map_err(wrong)?;
    }
    layer.finish().map_err(wrong)?;
    // The digest covers the archive's end too, which the tar reader leaves.
    io::copy(&mut plain, &mut io::sink()).map_err(wrong)?;
    let (digest, _) = outer.take();
    let (diff_id, size) = inner.take();
    Ok(Unpacked { diff_id: hex(&diff_id.finalize()), digest: hex(&digest.finalize()), size })
}

/// A layer that is being unpacked. Every path is resolved inside it, by the kernel.
struct Layer {
    root: OwnedFd,
    /// Times of directories, set when nothing is put into them any more.
    times: BTreeMap<PathBuf, u64>,
    /// What whiteouts of this layer hide.
    hidden: BTreeSet<PathBuf>,
}

fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

impl Layer {
    fn open(root: &Path) -> io::Result<Self> {
        let root = openat(AT_FDCWD, root, OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        fchmod(&root, Mode::from_bits_truncate(0o755))?;
        Ok(Self { root, times: BTreeMap::new(), hidden: BTreeSet::new() })
    }

    fn resolve(&self, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(&self.root, path, how)
    }

    /// The directory, made with its parents where the archive has none.
    fn dir(&self, path: &Path) -> io::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        match self.resolve(path, flags) {
            Ok(dir) => return Ok(dir),
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut so_far = PathBuf::new();
        let mut parent = self.resolve(&so_far, flags)?;
        for part in path.components() {
            so_far.push(part);
            parent = match self.resolve(&so_far, flags) {
                Ok(dir) => dir,
                Err(Errno::ENOENT) => {
                    mkdirat(&parent, part.as_os_str(), Mode::from_bits_truncate(0o755))?;
                    self.resolve(&so_far, flags)?
                }
                Err(errno) => return Err(errno.into()),
            };
        }
        Ok(parent)
    }

    fn add(&mut self, entry: &mut Entry<'_, impl Read>) -> io::Result<()> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let path = normal(&entry.path()?)?;
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            // The root itself: its attributes only.
            let root = self.root.try_clone()?;
            return attributes(&root, OsStr::new("."), entry, true);
        };
        let parent_path = path.parent().unwrap_or(Path::new("")).to_owned();
        let parent = self.dir(&parent_path)?;
        if let Some(hidden) = name.to_str().and_then(|name| name.strip_prefix(WHITEOUT)) {
            return self.whiteout(&parent, &parent_path, name.to_str() == Some(OPAQUE), hidden);
        }
        let directory = kind == EntryType::Directory
            || (kind == EntryType::Regular && entry.size() == 0 && entry.path_bytes().ends_with(b"/"));
        make_room(&parent, &name, directory)?;
        match kind {
            _ if directory => {
                match mkdirat(&parent, name.as_os_str(), Mode::from_bits_truncate(0o700)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(errno.into()),
                }
                if self.hidden.remove(&path) {
                    // What the lower directory held stays hidden though there is a new one.
                    self.opaque(&path)?;
                }
                self.times.insert(path, entry.header().mtime().unwrap_or(0));
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let mut file = File::from(openat(&parent, name.as_os_str(), flags, Mode::from_bits_truncate(0o600))?);
                let size = entry.size();
                if io::copy(entry, &mut file)? != size && kind != EntryType::GNUSparse {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
                }
            }
            EntryType::Symlink => {
                let target = entry.link_name()?.ok_or_else(|| invalid("a symbolic link without target"))?;
                symlinkat(target.as_ref(), &parent, name.as_os_str())?;
            }
            EntryType::Link => {
                let target = entry.link_name()?.ok_or_else(|| invalid("a hard link without target"))?;
                let target = normal(&target)?;
                let of = self.resolve(target.parent().unwrap_or(Path::new("")), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
                let old = target.file_name().ok_or_else(|| invalid("a hard link to the root"))?;
                linkat(&of, old, &parent, name.as_os_str(), AtFlags::empty())?;
                // The file's attributes came with its first name.
                return Ok(());
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let (kind, device) = match kind {
                    EntryType::Char => (SFlag::S_IFCHR, device(entry.header())?),
                    EntryType::Block => (SFlag::S_IFBLK, device(entry.header())?),
                    _ => (SFlag::S_IFIFO, 0),
                };
                mknodat(&parent, name.as_os_str(), kind, Mode::from_bits_truncate(0o600), device)?;
            }
            other => return Err(invalid(format!("an entry of unknown type {:?} at {}", other, path.display()))),
        }
        attributes(&parent, &name, entry, directory)
    }

    /// Hides what lower layers have in this directory.
    fn opaque(&self, path: &Path) -> io::Result<()> {
        let dir = self.resolve(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        xattr::FileExt::set_xattr(&File::from(dir), "trusted.overlay.opaque", b"y")
    }

    fn whiteout(&mut self, parent: &OwnedFd, path: &Path, opaque: bool, hidden: &str) -> io::Result<()> {
        if opaque {
            return self.opaque(path);
        }
        if hidden.is_empty() || hidden == "." || hidden == ".." {
            return Err(invalid("a whiteout of nothing"));
        }
        if hidden.starts_with(WHITEOUT) {
            // Bookkeeping of AUFS, such as `.wh..wh.plnk`.
            return Ok(());
        }
        // A whiteout is about lower layers: what this one has of that name stays.
        match fstatat(parent, hidden, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) if SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR => {
                self.opaque(&path.join(hidden))
            }
            Ok(_) => Ok(()),
            Err(Errno::ENOENT) => {
                self.hidden.insert(path.join(hidden));
                // Overlayfs: a character device 0/0 hides what is below.
                Ok(mknodat(parent, hidden, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0))?)
            }
            Err(errno) => Err(errno.into()),
        }
    }

    fn finish(&self) -> io::Result<()> {
        // The deepest first, though setting a time does not change the parent's.
        for (path, time) in self.times.iter().rev() {
            let Some(name) = path.file_name() else { continue };
            let Ok(parent) = self.resolve(path.parent().unwrap_or(Path::new("")), OFlag::O_PATH | OFlag::O_DIRECTORY)
            else {
                continue;
            };
            set_time(&parent, name, *time)?;
        }
        Ok(())
    }
}

/// The path without `/` at its start and `.` within. One that climbs is refused, wherever it would lead.
fn normal(path: &Path) -> io::Result<PathBuf> {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(invalid(format!("the path {} climbs out of the image", path.display())));
            }
        }
    }
    Ok(out)
}

fn device(header: &tar::Header) -> io::Result<nix::libc::dev_t> {
    Ok(makedev(header.device_major()?.unwrap_or(0).into(), header.device_minor()?.unwrap_or(0).into()))
}

/// A later entry replaces an earlier one; a directory stays when it is to be a directory.
fn make_room(parent: &OwnedFd, name: &OsStr, directory: bool) -> io::Result<()> {
    match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
        Ok(stat) if SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR => {
            if directory {
                return Ok(());
            }
            // The standard library's removal never follows links.
            std::fs::remove_dir_all(Path::new(&format!("/proc/self/fd/{}", parent.as_raw_fd())).join(name))
        }
        Ok(_) => Ok(unlinkat(parent, name, UnlinkatFlags::NoRemoveDir)?),
    }
}

fn attributes(parent: &OwnedFd, name: &OsStr, entry: &mut Entry<'_, impl Read>, directory: bool) -> io::Result<()> {
    let extended = entry.pax_extensions()?.map(|extensions| {
        extensions
            .filter_map(Result::ok)
            .filter_map(|e| Some((e.key().ok()?.strip_prefix("SCHILY.xattr.")?.to_owned(), e.value_bytes().to_vec())))
            .collect::<Vec<_>>()
    });
    let header = entry.header();
    let id = |value: io::Result<u64>| u32::try_from(value?).map_err(|_| invalid("an owner out of range"));
    let owner = (Uid::from_raw(id(header.uid())?), Gid::from_raw(id(header.gid())?));
    fchownat(parent, name, Some(owner.0), Some(owner.1), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if header.entry_type() == EntryType::Symlink {
        return set_time(parent, name, header.mtime().unwrap_or(0));
    }
    let path = format!("/proc/self/fd/{}", parent.as_raw_fd());
    let path = Path::new(&path).join(name);
    // After the owner: changing that clears the set-user-ID bit.
    let mode = Mode::from_bits_truncate(header.mode()? & 0o7777);
    nix::sys::stat::fchmodat(parent, name, mode, nix::sys::stat::FchmodatFlags::FollowSymlink)?;
    for (key, value) in extended.into_iter().flatten() {
        // What decides how overlayfs sees the layer is ours to say, and `user.` needs a file that can have it.
        if key.starts_with("trusted.") || key.starts_with("user.overlay.") {
            continue;
        }
        match xattr::set(&path, &key, &value) {
            Err(error) if key == "security.capability" || error.raw_os_error() != Some(nix::libc::ENOTSUP) => {
                return Err(error);
            }
            _ => {}
        }
    }
    if directory { Ok(()) } else { set_time(parent, name, header.mtime().unwrap_or(0)) }
}

fn set_time(parent: &OwnedFd, name: &OsStr, seconds: u64) -> io::Result<()> {
    let time = TimeSpec::new(seconds.min(i64::MAX as u64).cast_signed(), 0);
    Ok(utimensat(parent, name, &time, &time, UtimensatFlags::NoFollowSymlink)?)
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
