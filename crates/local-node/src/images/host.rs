//! The image `host`: this machine's programs and libraries, read-only, and nothing that is anybody's.

use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::HostBind;

/// Directories that every root file system has, with their modes.
const SKELETON: [(&str, u32); 26] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("media", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("run/lock", 0o1777),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("var", 0o755),
    ("var/cache", 0o755),
    ("var/lib", 0o755),
    ("var/local", 0o755),
    ("var/log", 0o755),
    ("var/mail", 0o755),
    ("var/opt", 0o755),
    ("var/spool", 0o755),
    ("var/tmp", 0o1777),
    ("etc/ssl", 0o755),
    ("etc/pki", 0o755),
    ("etc/pki/tls", 0o755),
];

/// What programs need of `/etc`. Only what every user of the machine may read is taken, at any depth.
const CONFIGURATION: [&str; 40] = [
    "alternatives",
    "bash.bashrc",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "debian_version",
    "ethertypes",
    "fonts",
    "gai.conf",
    "host.conf",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "locale.conf",
    "localtime",
    "magic",
    "magic.mime",
    "mime.types",
    "networks",
    "os-release",
    "perl",
    "php",
    "pki/ca-trust/extracted",
    "pki/tls/cert.pem",
    "pki/tls/certs",
    "protocols",
    "redhat-release",
    "rpc",
    "services",
    "shells",
    "ssl/cert.pem",
    "ssl/certs",
    "ssl/openssl.cnf",
    "system-release",
    "terminfo",
    "timezone",
    "xml",
    "sgml",
];

/// The same by the beginning of the name: language runtimes carry their version in it.
const CONFIGURATION_PREFIXES: [&str; 3] = ["java-", "python", "ruby"];

/// Largest file and most files taken of `/etc`: certificate bundles are far below.
const MAX_FILE: u64 = 16 * 1024 * 1024;
const MAX_ENTRIES: u64 = 20_000;

/// Most entries of `/usr/local` that are looked at for private files.
const MAX_LOOKED_AT: usize = 200_000;

/// The file system below the binds, and what is bound over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostTree {
    /// Digest of the tree's content.
    pub id: String,
    /// Read-only paths of the machine.
    pub binds: Vec<HostBind>,
    /// Bytes in files of the tree.
    pub size: u64,
}

/// Builds the tree in `root`, an empty directory. `machine` is `/` but in tests; `blanks` holds the empty file and
/// directory that cover what is private.
pub(super) fn build(machine: &Path, root: &Path, blanks: &Blanks) -> io::Result<HostTree> {
    let mut tree = Tree { hash: Sha256::new(), size: 0, entries: 0 };
    fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
    for (name, mode) in SKELETON {
        tree.dir(&root.join(name), mode)?;
    }
    tree.link(&root.join("var/run"), Path::new("/run"))?;
    tree.link(&root.join("var/lock"), Path::new("/run/lock"))?;
    tree.link(&root.join("etc/mtab"), Path::new("/proc/self/mounts"))?;
    let shell = if machine.join("bin/bash").exists() { "/bin/bash" } else { "/bin/sh" };
    let fresh = [
        (
            "passwd",
            format!(
                "root:x:0:0:root:/root:{shell}\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
             bin:x:2:2:bin:/bin:/usr/sbin/nologin\nwww-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n\
             nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
            ),
        ),
        (
            "group",
            "root:x:0:\ndaemon:x:1:\nbin:x:2:\nadm:x:4:\ntty:x:5:\nmail:x:8:\nwww-data:x:33:\nutmp:x:43:\n\
             staff:x:50:\nusers:x:100:\nnogroup:x:65534:\n"
                .to_owned(),
        ),
        (
            "nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n".to_owned(),
        ),
        ("profile", format!("export PATH={}\n", crate::pod::spec::DEFAULT_PATH)),
        // The node binds its own over these.
        ("hosts", String::new()),
        ("hostname", String::new()),
        ("resolv.conf", String::new()),
    ];
    for (name, content) in fresh {
        tree.file(&root.join("etc").join(name), content.as_bytes())?;
    }
    let mut names: Vec<String> = CONFIGURATION.iter().map(|name| (*name).to_owned()).collect();
    for entry in fs::read_dir(machine.join("etc"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if CONFIGURATION_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            names.push(name);
        }
    }
    names.sort();
    for name in names {
        tree.copy(&machine.join("etc").join(&name), &root.join("etc").join(&name))?;
    }
    let binds = programs(machine, root, &mut tree, blanks)?;
    for bind in &binds {
        tree.note("bind", &bind.target, bind.source.as_os_str().as_encoded_bytes());
    }
    Ok(HostTree { id: format!("sha256:{}", hex(&tree.hash.finalize())), binds, size: tree.size })
}

/// `/usr`, and beside it the links or directories that this machine has for its programs.
fn programs(machine: &Path, root: &Path, tree: &mut Tree, blanks: &Blanks) -> io::Result<Vec<HostBind>> {
    let mut binds = vec![HostBind { source: machine.join("usr"), target: "/usr".into() }];
    for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
        let path = machine.join(name);
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_symlink() {
            tree.link(&root.join(name), &fs::read_link(&path)?)?;
        } else if metadata.is_dir() {
            tree.dir(&root.join(name), 0o755)?;
            binds.push(HostBind { source: path, target: Path::new("/").join(name) });
        }
    }
    for path in private_below(&machine.join("usr/local")) {
        let Ok(inside) = path.strip_prefix(machine) else { continue };
        let source = if path.is_dir() { blanks.dir.clone() } else { blanks.file.clone() };
        binds.push(HostBind { source, target: Path::new("/").join(inside) });
    }
    Ok(binds)
}

/// What only its owner may read is no program; a container's root must not read it either.
fn private_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut walk = walkdir::WalkDir::new(dir).sort_by_file_name().into_iter();
    let mut looked_at = 0;
    while let Some(entry) = walk.next() {
        looked_at += 1;
        if looked_at > MAX_LOOKED_AT {
            tracing::warn!(dir = %dir.display(), "too many files to look for private ones beyond the first {MAX_LOOKED_AT}");
            break;
        }
        let Ok(entry) = entry else { continue };
        let kind = entry.file_type();
        if entry.depth() == 0 || !(kind.is_file() || kind.is_dir()) {
            continue;
        }
        if entry.metadata().is_ok_and(|metadata| metadata.mode() & 0o044 == 0) {
            found.push(entry.path().to_owned());
            if kind.is_dir() {
                walk.skip_current_dir();
            }
        }
    }
    found
}

/// An empty file and an empty directory, to cover others with.
#[derive(Debug, Clone)]
pub(super) struct Blanks {
    /// Empty file.
    pub file: PathBuf,
    /// Empty directory.
    pub dir: PathBuf,
}

impl Blanks {
    /// Makes them unless they are there.
    pub fn in_dir(parent: &Path) -> io::Result<Self> {
        let blanks = Self { file: parent.join("empty-file"), dir: parent.join("empty-dir") };
        fs::create_dir_all(&blanks.dir)?;
        fs::OpenOptions::new().create(true).append(true).open(&blanks.file)?;
        Ok(blanks)
    }
}

struct Tree {
    hash: Sha256,
    size: u64,
    entries: u64,
}

impl Tree {
    fn note(&mut self, kind: &str, path: &Path, content: &[u8]) {
        self.entries += 1;
        for part in [kind.as_bytes(), path.as_os_str().as_encoded_bytes(), content] {
            self.hash.update((part.len() as u64).to_le_bytes());
            self.hash.update(part);
        }
    }

    fn dir(&mut self, path: &Path, mode: u32) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o755).create(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        self.note("dir", Path::new(path.file_name().unwrap_or_default()), &mode.to_le_bytes());
        Ok(())
    }

    fn link(&mut self, path: &Path, target: &Path) -> io::Result<()> {
        symlink(target, path)?;
        self.note("link", Path::new(path.file_name().unwrap_or_default()), target.as_os_str().as_encoded_bytes());
        Ok(())
    }

    fn file(&mut self, path: &Path, content: &[u8]) -> io::Result<()> {
        fs::write(path, content)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o644))?;
        self.size += content.len() as u64;
        self.note("file", Path::new(path.file_name().unwrap_or_default()), content);
        Ok(())
    }

    /// Copies what everybody may read; what is not there, or is private, is left out.
    fn copy(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        if self.entries > MAX_ENTRIES {
            return Ok(());
        }
        let Ok(metadata) = fs::symlink_metadata(from) else { return Ok(()) };
        let name = from.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name == "private" || name.ends_with(".key") {
            return Ok(());
        }
        if metadata.is_symlink() {
            return self.link(to, &fs::read_link(from)?);
        }
        if !readable_by_all(&metadata) {
            return Ok(());
        }
        if metadata.is_file() && metadata.len() <= MAX_FILE {
            self.make_parent(to)?;
            return self.file(to, &fs::read(from)?);
        }
        if metadata.is_dir() {
            self.make_parent(to)?;
            self.dir(to, 0o755)?;
            let mut entries: Vec<_> =
                fs::read_dir(from)?.filter_map(Result::ok).map(|entry| entry.file_name()).collect();
            entries.sort();
            for entry in entries {
                self.copy(&from.join(&entry), &to.join(&entry))?;
            }
        }
        Ok(())
    }

    fn make_parent(&mut self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent) if !parent.exists() => DirBuilder::new().recursive(true).mode(0o755).create(parent),
            _ => Ok(()),
        }
    }
}

fn readable_by_all(metadata: &Metadata) -> bool {
    let wanted = if metadata.is_dir() { 0o005 } else { 0o004 };
    metadata.mode() & wanted == wanted
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|n| char::from_digit(n.into(), 16).unwrap_or('0'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_private_gets_in() {
        let machine = tempfile::tempdir().unwrap();
        let at = |path: &str| machine.path().join(path);
        for dir in [
            "etc/ssl/certs",
            "etc/ssl/private",
            "etc/ssh",
            "etc/python3",
            "usr/bin",
            "usr/local/bin",
            "usr/local/keys",
            "home/me",
        ] {
            fs::create_dir_all(at(dir)).unwrap();
        }
        symlink("usr/bin", at("bin")).unwrap();
        fs::create_dir_all(at("lib")).unwrap();
        for (file, mode) in [
            ("etc/shadow", 0o640),
            ("etc/ssh/key", 0o644),
            ("etc/pip.conf", 0o644),
            ("etc/services", 0o644),
            ("etc/ssl/private/a.key", 0o644),
            ("etc/ssl/certs/ca.pem", 0o644),
            ("etc/ssl/certs/hidden.pem", 0o600),
            ("etc/ssl/certs/b.key", 0o644),
            ("etc/python3/debian_config", 0o644),
            ("usr/local/bin/tool", 0o755),
            ("usr/local/token", 0o600),
            ("usr/local/keys/one", 0o644),
        ] {
            fs::write(at(file), file).unwrap();
            fs::set_permissions(at(file), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::set_permissions(at("usr/local/keys"), fs::Permissions::from_mode(0o700)).unwrap();
        let out = tempfile::tempdir().unwrap();
        let root = out.path().join("fs");
        fs::create_dir(&root).unwrap();
        let blanks = Blanks::in_dir(out.path()).unwrap();
        let tree = build(machine.path(), &root, &blanks).unwrap();
        let has = |path: &str| fs::symlink_metadata(root.join(path)).is_ok();
        for path in
            ["etc/services", "etc/ssl/certs/ca.pem", "etc/python3/debian_config", "etc/passwd", "bin", "tmp", "root"]
        {
            assert!(has(path), "{path}");
        }
        for path in [
            "etc/shadow",
            "etc/ssh",
            "etc/pip.conf",
            "etc/ssl/private",
            "etc/ssl/certs/hidden.pem",
            "etc/ssl/certs/b.key",
            "home/me",
        ] {
            assert!(!has(path), "{path}");
        }
        let targets: Vec<_> = tree.binds.iter().map(|bind| bind.target.to_string_lossy().into_owned()).collect();
        assert_eq!(targets, ["/usr", "/lib", "/usr/local/keys", "/usr/local/token"]);
        assert_eq!(tree.binds[2].source, blanks.dir);
        assert_eq!(tree.binds[3].source, blanks.file);
        let again = out.path().join("again");
        fs::create_dir(&again).unwrap();
        assert_eq!(build(machine.path(), &again, &blanks).unwrap(), tree, "the same machine gives the same digest");
    }
}
