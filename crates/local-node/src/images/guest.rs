//! The images that are built in: our own guest programs over this machine's.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{ImageDefaults, ImageError};

const BOOTSTRAP: &str = include_str!("../../../../images/execd/bootstrap.sh");

/// An image that needs no registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BuiltIn {
    /// This machine's programs.
    Host,
    /// What installs execd into a pod.
    Execd,
    /// The task executor.
    TaskExecutor,
}

impl BuiltIn {
    /// By registry and repository; any tag.
    pub fn find(registry: &str, repository: &str) -> Option<Self> {
        match (registry, repository) {
            ("docker.io", "library/host") => Some(Self::Host),
            ("docker.io", "opensandbox/execd") => Some(Self::Execd),
            ("docker.io", "opensandbox/task-executor") => Some(Self::TaskExecutor),
            _ => None,
        }
    }

    /// The guest program it carries.
    pub fn binary(self) -> Option<&'static str> {
        match self {
            Self::Host => None,
            Self::Execd => Some("execd"),
            Self::TaskExecutor => Some("task-executor"),
        }
    }

    /// What it says about running it.
    pub fn defaults(self) -> ImageDefaults {
        let entrypoint = match self {
            Self::Host => vec![],
            Self::Execd => vec!["/execd".to_owned()],
            Self::TaskExecutor => vec!["/task-executor".to_owned()],
        };
        let command = if self == Self::Host { vec!["/bin/sh".to_owned()] } else { vec![] };
        ImageDefaults {
            env: vec![format!("PATH={}", crate::pod::spec::DEFAULT_PATH)],
            entrypoint,
            command,
            working_dir: Some("/".to_owned()),
            ..ImageDefaults::default()
        }
    }
}

/// A guest program as it is on disk now: another build is another key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    /// Where it is.
    pub path: PathBuf,
    /// Name of the layer that holds it.
    pub key: String,
}

/// Finds the program in the directory of guests.
pub(super) fn locate(binary: &'static str, dir: &Path) -> Result<Program, ImageError> {
    let path = dir.join(binary);
    let metadata = fs::metadata(&path).ok().filter(|metadata| metadata.is_file());
    let metadata = metadata.ok_or_else(|| ImageError::GuestMissing { binary, dir: dir.display().to_string() })?;
    let key = format!(
        "{binary}-{:x}-{:x}-{:x}-{:x}",
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec()
    );
    Ok(Program { path, key })
}

/// Fills an empty directory with the program's layer.
pub(super) fn build(program: &Program, kind: BuiltIn, root: &Path) -> io::Result<()> {
    fs::set_permissions(root, Permissions::from_mode(0o755))?;
    let Some(binary) = kind.binary() else { return Ok(()) };
    let target = root.join(binary);
    // A copy: an image does not change while containers run from it, though the program be built anew.
    fs::copy(&program.path, &target)?;
    fs::set_permissions(&target, Permissions::from_mode(0o755))?;
    if kind == BuiltIn::Execd {
        let script = root.join("bootstrap.sh");
        fs::write(&script, BOOTSTRAP)?;
        fs::set_permissions(&script, Permissions::from_mode(0o755))?;
    }
    Ok(())
}
