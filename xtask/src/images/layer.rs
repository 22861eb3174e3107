//! One layer: a tar whose bytes depend on its contents alone.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

/// Every file's time. Times say nothing about a built file, and a layer without them stays the same,
/// and stays on the nodes that have it, when a commit changes nothing in it.
const MTIME: u64 = 0;

/// What a path in a layer is.
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file with these contents.
    File(Vec<u8>),
    /// A symbolic link to this path.
    Link(String),
}

/// A path in a layer.
pub struct Entry {
    /// Permission bits; those of a link are always 0777.
    pub mode: u32,
    /// UID and GID.
    pub owner: u64,
    /// What it is.
    pub kind: Kind,
}

/// The paths of a layer, without a leading slash, in the order of the archive.
#[derive(Default)]
pub struct Tree(BTreeMap<String, Entry>);

impl Tree {
    /// Adds a path, and the directories above it where nobody has said what they are.
    pub fn add(&mut self, path: &str, entry: Entry) {
        let path = path.trim_matches('/');
        for (slash, _) in path.match_indices('/') {
            let parent = Entry { mode: 0o755, owner: 0, kind: Kind::Directory };
            self.0.entry(path[..slash].to_owned()).or_insert(parent);
        }
        self.0.insert(path.to_owned(), entry);
    }

    /// Whether there is anything in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A compressed layer.
pub struct Layer {
    /// Digest of the tar before compression, `sha256:...`.
    pub diff_id: String,
    /// Bytes before compression.
    pub unpacked: u64,
    /// The gzip stream.
    pub bytes: Vec<u8>,
    /// What it is, for the image's history.
    pub comment: String,
}

impl Layer {
    /// Archives a tree. `level` is gzip's: 1 is fast, 9 is small.
    pub fn new(tree: &Tree, level: u32, comment: &str) -> Result<Self> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, entry) in &tree.0 {
            append(&mut archive, path, entry).with_context(|| format!("cannot archive {path}"))?;
        }
        let tar = archive.into_inner().context("cannot end the archive")?;
        // No name, no time, and "unknown" as the system: the header of a gzip stream is a constant.
        let mut gzip = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::new(level));
        gzip.write_all(&tar).context("cannot compress")?;
        let bytes = gzip.finish().context("cannot compress")?;
        Ok(Self { diff_id: digest(&tar), unpacked: u64::try_from(tar.len())?, bytes, comment: comment.to_owned() })
    }
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, entry: &Entry) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_mtime(MTIME);
    header.set_mode(entry.mode);
    header.set_uid(entry.owner);
    header.set_gid(entry.owner);
    header.set_size(0);
    match &entry.kind {
        Kind::Directory => {
            header.set_entry_type(EntryType::Directory);
            archive.append_data(&mut header, format!("{path}/"), &[][..])?;
        }
        Kind::File(bytes) => {
            header.set_entry_type(EntryType::Regular);
            header.set_size(u64::try_from(bytes.len())?);
            archive.append_data(&mut header, path, &bytes[..])?;
        }
        Kind::Link(target) => {
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            archive.append_link(&mut header, path, target)?;
        }
    }
    Ok(())
}

/// `sha256:...` of some bytes.
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(order: &[usize]) -> Tree {
        let mut tree = Tree::default();
        for index in order {
            match index {
                0 => tree.add("/bin/sh", Entry { mode: 0, owner: 0, kind: Kind::Link("busybox".to_owned()) }),
                1 => tree.add("/a", Entry { mode: 0o755, owner: 7, kind: Kind::File(b"text".to_vec()) }),
                _ => tree.add("/tmp", Entry { mode: 0o1777, owner: 0, kind: Kind::Directory }),
            }
        }
        tree
    }

    #[test]
    fn the_order_of_making_does_not_matter() {
        let one = Layer::new(&tree(&[0, 1, 2]), 6, "").unwrap();
        let other = Layer::new(&tree(&[2, 1, 0]), 6, "").unwrap();
        assert_eq!(one.diff_id, other.diff_id);
        assert_eq!(digest(&one.bytes), digest(&other.bytes));
    }

    #[test]
    fn what_is_written_is_what_was_said() {
        let layer = Layer::new(&tree(&[0, 1, 2]), 1, "").unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&layer.bytes[..]));
        let seen: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                let path = entry.path().unwrap().display().to_string();
                (path, header.mode().unwrap(), header.uid().unwrap(), header.mtime().unwrap())
            })
            .collect();
        let expected = [("a", 0o755, 7), ("bin/", 0o755, 0), ("bin/sh", 0o777, 0), ("tmp/", 0o1777, 0)]
            .map(|(path, mode, uid)| (path.to_owned(), mode, uid, MTIME));
        assert_eq!(seen, expected);
    }
}
