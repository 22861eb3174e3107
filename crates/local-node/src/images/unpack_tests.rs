use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::*;

/// An archive of entries: type, path, target or content, mode.
fn archive(entries: &[(EntryType, &str, &str, u32)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (kind, path, text, mode) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_uid(if nix::unistd::geteuid().is_root() { 7 } else { nix::unistd::getuid().as_raw().into() });
        header.set_gid(if nix::unistd::geteuid().is_root() { 8 } else { nix::unistd::getgid().as_raw().into() });
        header.set_mtime(1_000_000);
        // Written as it is: the builder's own checks would refuse what the tests are about.
        let name = header.as_gnu_mut().unwrap();
        name.name[..path.len()].copy_from_slice(path.as_bytes());
        let content = match kind {
            EntryType::Symlink | EntryType::Link => {
                name.linkname[..text.len()].copy_from_slice(text.as_bytes());
                &[]
            }
            EntryType::Regular => text.as_bytes(),
            _ => &[],
        };
        if *kind == EntryType::Char {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn unpacked(bytes: &[u8]) -> (tempfile::TempDir, Result<Unpacked, ImageError>) {
    let dir = tempfile::tempdir().unwrap();
    let result = unpack(bytes, dir.path(), Limits::default(), "the layer");
    (dir, result)
}

fn root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: owners, devices and overlay attributes need root");
    }
    root
}

#[test]
fn attributes_are_kept() {
    if !root() {
        return;
    }
    let bytes = archive(&[
        (EntryType::Directory, "./", "", 0o755),
        (EntryType::Directory, "dir/", "", 0o1777),
        (EntryType::Regular, "dir/file", "hello", 0o4755),
        (EntryType::Link, "dir/second", "dir/file", 0),
        (EntryType::Symlink, "link", "/absolute/../target", 0o777),
        (EntryType::Fifo, "fifo", "", 0o640),
        (EntryType::Char, "null", "", 0o666),
        (EntryType::Regular, "implied/parents/x", "y", 0o600),
        (EntryType::Regular, "dir/file2", "first", 0o600),
        (EntryType::Regular, "dir/file2", "last", 0o644),
    ]);
    let (dir, result) = unpacked(&bytes);
    let result = result.unwrap();
    assert_eq!(result.size, bytes.len() as u64);
    assert_eq!(result.diff_id, result.digest, "nothing was compressed");
    let at = |name: &str| fs::symlink_metadata(dir.path().join(name)).unwrap();
    assert_eq!((at("dir").mode() & 0o7777, at("dir").mtime()), (0o1777, 1_000_000));
    assert_eq!((at("dir/file").mode() & 0o7777, at("dir/file").uid(), at("dir/file").gid()), (0o4755, 7, 8));
    assert_eq!(at("dir/file").mtime(), 1_000_000);
    assert_eq!(at("dir/file").ino(), at("dir/second").ino());
    assert_eq!(fs::read_link(dir.path().join("link")).unwrap(), Path::new("/absolute/../target"));
    assert_eq!(at("null").rdev(), makedev(1, 3));
    assert!(at("fifo").file_type().is_fifo() && at("null").file_type().is_char_device());
    assert_eq!(at("implied/parents").mode() & 0o7777, 0o755);
    assert_eq!(fs::read(dir.path().join("dir/file2")).unwrap(), b"last");
}

#[test]
fn compression_is_recognised_and_digests_differ() {
    let plain = archive(&[(EntryType::Regular, "file", "hello", 0o644)]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    io::Write::write_all(&mut gzip, &plain).unwrap();
    let zstd = zstd::encode_all(plain.as_slice(), 0).unwrap();
    let diff_id = unpacked(&plain).1.unwrap().diff_id;
    for compressed in [gzip.finish().unwrap(), zstd] {
        let (dir, result) = unpacked(&compressed);
        let result = result.unwrap();
        assert_eq!(result.diff_id, diff_id);
        assert_eq!(result.digest, hex(&Sha256::digest(&compressed)));
        assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"hello");
        let (_dir, truncated) = unpacked(&compressed[..compressed.len() / 2]);
        assert!(matches!(truncated, Err(ImageError::Corrupt { .. })), "{truncated:?}");
    }
    let (_dir, truncated) = unpacked(&plain[..600]);
    assert!(truncated.is_err());
}

#[test]
fn nothing_gets_out_of_the_layer() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    for bad in [
        archive(&[(EntryType::Regular, "../evil", "x", 0o644)]),
        archive(&[(EntryType::Regular, "a/../../evil", "x", 0o644)]),
        archive(&[(EntryType::Link, "passwd", "../../etc/passwd", 0o644)]),
        archive(&[(EntryType::Link, "passwd", "etc/passwd", 0o644)]),
    ] {
        let (dir, result) = unpacked(&bad);
        assert!(matches!(result, Err(ImageError::Corrupt { .. })), "{result:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
    // A link out of the layer is kept as it is; what is put below it stays inside.
    let sly = archive(&[(EntryType::Symlink, "door", target, 0o777), (EntryType::Regular, "door/evil", "x", 0o644)]);
    let (dir, _) = unpacked(&sly);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    assert!(dir.path().join("door").is_symlink());
    // A file in place of a link replaces the link, not what it points to.
    let file = outside.path().join("file");
    fs::write(&file, "precious").unwrap();
    let over =
        archive(&[(EntryType::Symlink, "f", file.to_str().unwrap(), 0o777), (EntryType::Regular, "f", "evil", 0o644)]);
    unpacked(&over).1.unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"precious");
}

#[test]
fn limits_hold() {
    let bytes = archive(&[(EntryType::Regular, "a", "x", 0o644), (EntryType::Regular, "b", "x", 0o644)]);
    for limits in [Limits { bytes: 1000, entries: 10 }, Limits { bytes: 1 << 20, entries: 1 }] {
        let dir = tempfile::tempdir().unwrap();
        let result = unpack(bytes.as_slice(), dir.path(), limits, "the layer");
        assert!(matches!(result, Err(ImageError::TooLarge { .. })), "{result:?}");
    }
}

#[test]
fn whiteouts_hide_what_is_below() {
    if !root() {
        return;
    }
    let (lower, _) = unpacked(&archive(&[
        (EntryType::Regular, "gone", "x", 0o644),
        (EntryType::Regular, "stays", "x", 0o644),
        (EntryType::Regular, "dir/old", "x", 0o644),
        (EntryType::Regular, "anew/old", "x", 0o644),
        (EntryType::Regular, "early/old", "x", 0o644),
    ]));
    let (upper, result) = unpacked(&archive(&[
        (EntryType::Regular, ".wh.gone", "", 0o644),
        (EntryType::Regular, "dir/.wh..wh..opq", "", 0o644),
        (EntryType::Regular, "dir/new", "x", 0o644),
        (EntryType::Regular, ".wh.anew", "", 0o644),
        (EntryType::Directory, "anew/", "", 0o755),
        (EntryType::Regular, "anew/new", "x", 0o644),
        (EntryType::Directory, "early/", "", 0o755),
        (EntryType::Regular, "early/new", "x", 0o644),
        (EntryType::Regular, ".wh.early", "", 0o644),
    ]));
    result.unwrap();
    let (lower, upper) = (lower.path().to_owned(), upper.path().to_owned());
    // A mount namespace of the thread's own: nothing is left behind, whatever happens.
    let names = std::thread::spawn(move || {
        use nix::mount::{MsFlags, mount};
        use nix::sched::{CloneFlags, unshare};
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let merged = tempfile::tempdir().unwrap();
        let options = format!("lowerdir={}:{}", upper.display(), lower.display());
        mount(Some("overlay"), merged.path(), Some("overlay"), MsFlags::MS_RDONLY, Some(options.as_str())).unwrap();
        let list = |path: &str| {
            let mut names: Vec<_> =
                fs::read_dir(merged.path().join(path)).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let found = (list(""), [list("dir"), list("anew"), list("early")]);
        nix::mount::umount(merged.path()).unwrap();
        found
    });
    let (top, dirs) = names.join().unwrap();
    assert_eq!(top, ["anew", "dir", "early", "stays"]);
    assert!(dirs.iter().all(|names| names == &["new"]), "{dirs:?}");
}
