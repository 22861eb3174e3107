//! `hostPath`: only below what the node allows, after every link has been followed.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

/// The path to bind, made where its type says so. The error says why not.
pub(super) fn resolve(path: &str, kind: &str, allowed: &[PathBuf]) -> Result<PathBuf, String> {
    let given = Path::new(path);
    if !given.is_absolute() || given.components().any(|part| part == Component::ParentDir) {
        return Err(format!("hostPath {path:?} must be absolute and must not contain `..`"));
    }
    let refused = || format!("hostPath {path:?} is not among the paths that this node allows");
    let allowed: Vec<PathBuf> = allowed.iter().filter_map(|dir| fs::canonicalize(dir).ok()).collect();
    let inside = |path: &Path| allowed.iter().any(|dir| path.starts_with(dir));
    match fs::canonicalize(given) {
        Ok(real) if inside(&real) => {
            let metadata = fs::metadata(&real).map_err(|error| format!("hostPath {path:?}: {error}"))?;
            check(path, kind, &metadata)?;
            Ok(real)
        }
        Ok(_) => Err(refused()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // What is to be made is made below the deepest parent that exists, and that must be allowed.
            let (existing, rest) = given
                .ancestors()
                .skip(1)
                .find_map(|up| Some((fs::canonicalize(up).ok()?, given.strip_prefix(up).ok()?)))
                .ok_or_else(refused)?;
            if !inside(&existing) {
                return Err(refused());
            }
            let target = existing.join(rest);
            make(path, kind, &target)?;
            let real = fs::canonicalize(&target).map_err(|error| format!("hostPath {path:?}: {error}"))?;
            if inside(&real) { Ok(real) } else { Err(refused()) }
        }
        Err(error) => Err(format!("hostPath {path:?}: {error}")),
    }
}

fn check(path: &str, kind: &str, metadata: &Metadata) -> Result<(), String> {
    let is = metadata.file_type();
    let (fits, wanted) = match kind {
        "" => (true, ""),
        "Directory" | "DirectoryOrCreate" => (is.is_dir(), "a directory"),
        "File" | "FileOrCreate" => (is.is_file(), "a file"),
        "Socket" => (is.is_socket(), "a socket"),
        "CharDevice" => (is.is_char_device(), "a character device"),
        "BlockDevice" => (is.is_block_device(), "a block device"),
        other => return Err(format!("hostPath type {other:?} is unknown")),
    };
    if fits { Ok(()) } else { Err(format!("hostPath type check failed: {path} is not {wanted}")) }
}

fn make(path: &str, kind: &str, target: &Path) -> Result<(), String> {
    let made = match kind {
        // Without a type nothing is checked, and a mount of what is missing makes a directory.
        "" | "DirectoryOrCreate" => fs::DirBuilder::new().recursive(true).mode(0o755).create(target),
        "FileOrCreate" => fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(target).map(drop),
        _ => return Err(format!("hostPath type check failed: {path} does not exist")),
    };
    made.map_err(|error| format!("hostPath {path:?} cannot be made: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_below_what_is_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let at = |name: &str| root.join(name).to_string_lossy().into_owned();
        for name in ["open/sub", "closed"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::write(root.join("open/file"), "x").unwrap();
        symlink(root.join("closed"), root.join("open/escape")).unwrap();
        symlink(root.join("open/sub"), root.join("open/inner")).unwrap();
        let allowed = [root.join("open")];
        let ok = |path: &str, kind: &str| resolve(&at(path), kind, &allowed);
        assert_eq!(ok("open/sub", "Directory").unwrap(), root.join("open/sub"));
        assert_eq!(ok("open/inner", "").unwrap(), root.join("open/sub"));
        assert_eq!(ok("open/file", "File").unwrap(), root.join("open/file"));
        assert!(ok("open/new/deep", "DirectoryOrCreate").unwrap().is_dir());
        assert!(ok("open/made", "FileOrCreate").unwrap().is_file());
        for (path, kind) in [
            ("closed", ""),
            ("open/escape", ""),
            ("open/escape/new", "DirectoryOrCreate"),
            ("open/../closed", ""),
            ("elsewhere", "DirectoryOrCreate"),
            ("open/missing", "Directory"),
            ("open/file", "Directory"),
            ("open/sub", "Nonsense"),
        ] {
            let refused = ok(path, kind);
            assert!(refused.is_err(), "{path} {kind}: {refused:?}");
        }
        assert!(!root.join("closed/new").exists());
        assert!(!root.join("elsewhere").exists());
        assert!(resolve("relative", "", &allowed).is_err());
        assert!(resolve("/", "", &[]).is_err());
    }
}
