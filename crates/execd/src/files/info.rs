//! What is known of a file.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use api_types::execd::{FileInfo, FileType};
use jiff::Timestamp;

use crate::users::Names;

/// Describes one entry; links are not followed.
///
/// # Errors
/// It is not there, or can't be looked at.
pub fn describe(path: &Path, names: &Names) -> io::Result<FileInfo> {
    let meta = std::fs::symlink_metadata(path)?;
    let kind = meta.file_type();
    let kind = if kind.is_symlink() {
        FileType::Symlink
    } else if kind.is_dir() {
        FileType::Directory
    } else if kind.is_file() {
        FileType::File
    } else {
        FileType::Other
    };
    Ok(FileInfo {
        path: path.to_string_lossy().into_owned(),
        kind: Some(kind),
        size: meta.size(),
        modified_at: time(meta.mtime(), meta.mtime_nsec()),
        created_at: time(meta.ctime(), meta.ctime_nsec()),
        owner: names.user(meta.uid()),
        group: names.group(meta.gid()),
        mode: digits(meta.mode() & 0o777),
    })
}

fn time(seconds: i64, nanoseconds: i64) -> Timestamp {
    let nanoseconds = i32::try_from(nanoseconds).unwrap_or(0);
    Timestamp::new(seconds, nanoseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A mode as the wire has it: octal digits in a decimal number.
pub fn digits(mode: u32) -> u32 {
    (0..4).rev().fold(0, |sum, place| sum * 10 + ((mode >> (3 * place)) & 7))
}

/// A mode from the wire; none if a digit is no octal one, or there are more than four.
pub fn mode(digits: u32) -> Option<u32> {
    let (mut left, mut mode, mut place) = (digits, 0, 0);
    while left > 0 {
        let digit = left % 10;
        if digit > 7 || place > 3 {
            return None;
        }
        mode |= digit << (3 * place);
        (left, place) = (left / 10, place + 1);
    }
    Some(mode)
}

/// Entries below a directory to a depth, each directory before what is in it, names in byte order;
/// links are named and not entered.
///
/// # Errors
/// The directory itself can't be read.
pub fn list(root: &Path, depth: usize, names: &Names) -> io::Result<Vec<FileInfo>> {
    std::fs::read_dir(root)?;
    if depth == 0 {
        return Ok(Vec::new());
    }
    let walk = walkdir::WalkDir::new(root).min_depth(1).max_depth(depth).follow_links(false).sort_by_file_name();
    // What vanishes meanwhile, or may not be entered, is passed over.
    Ok(walk.into_iter().flatten().filter_map(|entry| describe(entry.path(), names).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_digits_in_decimal() {
        for (octal, decimal) in [(0o644, 644), (0o755, 755), (0o4755, 4755), (0, 0), (0o7, 7)] {
            assert_eq!((digits(octal), mode(decimal)), (decimal, Some(octal)));
        }
        assert_eq!((mode(8), mode(648), mode(10_755)), (None, None, None));
    }

    #[test]
    fn a_listing_is_in_order_and_enters_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir_all(root.join("b/inner")).unwrap();
        std::fs::write(root.join("a"), "x").unwrap();
        std::fs::write(root.join("b/.hidden"), "").unwrap();
        std::os::unix::fs::symlink("b", root.join("c")).unwrap();
        let names = |depth| -> Vec<String> {
            let all = list(root, depth, &Names::default()).unwrap();
            all.iter().map(|i| i.path.strip_prefix(root.to_str().unwrap()).unwrap().to_owned()).collect()
        };
        assert_eq!(names(1), ["/a", "/b", "/c"]);
        assert_eq!(names(2), ["/a", "/b", "/b/.hidden", "/b/inner", "/c"]);
        assert!(names(0).is_empty());
    }
}
