//! The durable mark of a claim: one file inside the container, gone when the container is made anew.
//!
//! It is renamed into place but not forced to the disk: it must outlive this process, and a machine
//! that stops takes the container with it.

use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use api_types::execd::{ClaimRequest, EntrypointStatus};
use api_types::ids::{PodUid, SandboxId, SandboxUid};
use api_types::names::env as names;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::TokenHash;
use crate::envs::Env;

/// Name of the mark in its directory.
const FILE: &str = "claim.json";

/// What is kept of a claim. The token itself is not.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimRecord {
    /// Name of the sandbox.
    pub sandbox_id: SandboxId,
    /// The owner.
    pub sandbox_uid: SandboxUid,
    /// The pod that was claimed.
    pub pod_uid: PodUid,
    /// Epoch of the claim.
    pub epoch: u64,
    /// SHA-256 of the token, in hex.
    pub token_sha256: String,
    /// What it brought for every command.
    pub env: std::collections::BTreeMap<String, String>,
    /// What it brought to be started.
    pub entrypoint: Vec<String>,
    /// The process that was started for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint_mark: Option<EntrypointMark>,
}

/// A process that an execd started for the entrypoint, so that a later execd finds it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EntrypointMark {
    /// Process id; none when it could not be started.
    pub pid: Option<i32>,
    /// Its start in the kernel's ticks, for a number may be used again.
    pub start_ticks: Option<u64>,
    /// When it was started.
    pub started_at: Timestamp,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<EntrypointStatus>,
}

impl ClaimRecord {
    /// What is kept of this claim.
    pub fn of(request: &ClaimRequest) -> Self {
        Self {
            sandbox_id: request.sandbox_id.clone(),
            sandbox_uid: request.sandbox_uid.clone(),
            pod_uid: request.pod_uid.clone(),
            epoch: request.epoch,
            token_sha256: TokenHash::of(&request.token).to_hex(),
            env: request.env.clone(),
            entrypoint: request.entrypoint.clone(),
            entrypoint_mark: None,
        }
    }

    /// The token's hash.
    pub fn token_hash(&self) -> Option<TokenHash> {
        let mut bytes = [0; 32];
        if self.token_sha256.len() != 64 {
            return None;
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(self.token_sha256.get(2 * index..2 * index + 2)?, 16).ok()?;
        }
        Some(TokenHash(bytes))
    }

    /// Adds what the claim brought to an environment.
    pub fn overlay(&self, env: &mut Env) {
        crate::envs::overlay(env, &self.env);
        env.insert(names::SANDBOX_ID.into(), self.sandbox_id.as_str().into());
    }
}

/// The directory of the daemon's durable state.
#[derive(Debug, Clone)]
pub struct StateDir(Option<PathBuf>);

impl StateDir {
    /// The directory that was named, or the first of the usual ones that can be had: ours, and closed
    /// to everybody else. None when the container has no such place.
    pub fn find(named: Option<&Path>) -> Self {
        let me = nix::unistd::geteuid().as_raw();
        let usual = [
            PathBuf::from("/run/opensandbox/execd"),
            PathBuf::from(format!("/tmp/.opensandbox-{me}")),
            PathBuf::from(format!("/dev/shm/.opensandbox-{me}")),
        ];
        let candidates = named.map_or(usual.to_vec(), |path| vec![path.to_owned()]);
        Self(candidates.into_iter().find(|path| private(path, me).is_ok()))
    }

    /// The directory, if there is one.
    pub fn path(&self) -> Option<&Path> {
        self.0.as_deref()
    }
}

/// Makes the directory and proves that it is ours alone and writable: in a directory like `/tmp`
/// somebody else may have been there before.
fn private(path: &Path, me: u32) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let meta = std::fs::symlink_metadata(path)?;
    if !meta.is_dir() || meta.uid() != me {
        return Err(io::Error::from(io::ErrorKind::PermissionDenied));
    }
    if meta.mode() & 0o077 != 0 {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    }
    nix::unistd::access(path, nix::unistd::AccessFlags::W_OK)?;
    Ok(())
}

/// Where the mark is kept.
#[derive(Debug, Clone)]
pub struct Store(StateDir);

impl Store {
    /// A store in this directory.
    pub fn new(dir: StateDir) -> Self {
        Self(dir)
    }

    /// The mark of an earlier execd of this container. One of another pod is not ours.
    pub fn load(&self, pod_uid: Option<&str>) -> Option<ClaimRecord> {
        let path = self.0.path()?.join(FILE);
        let bytes = std::fs::read(&path).ok()?;
        let record: ClaimRecord = match serde_json::from_slice(&bytes) {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(%error, path = %path.display(), "the mark of the claim cannot be read; the pod counts as unclaimed");
                return None;
            }
        };
        match pod_uid {
            Some(own) if record.pod_uid.as_str() != own => None,
            _ => Some(record),
        }
    }

    /// Writes the mark.
    ///
    /// # Errors
    /// There is no place for it, or it can't be written; the former mark stays then.
    pub fn save(&self, record: &ClaimRecord) -> io::Result<()> {
        let dir = self.0.path().ok_or_else(|| {
            let text = format!(
                "no private directory can be had below /run, /tmp or /dev/shm; set {}",
                crate::config::STATE_DIR_ENV
            );
            io::Error::new(io::ErrorKind::ReadOnlyFilesystem, text)
        })?;
        let (temporary, path) = (dir.join(".claim.json.new"), dir.join(FILE));
        let bytes = serde_json::to_vec(record)?;
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&bytes)?;
        std::fs::rename(&temporary, &path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> ClaimRecord {
        ClaimRecord::of(&ClaimRequest {
            sandbox_id: "s".into(),
            sandbox_uid: "u".into(),
            pod_uid: "p".into(),
            epoch: 3,
            token: "secret-token".into(),
            env: [("A".to_owned(), "b".to_owned())].into(),
            entrypoint: vec!["x".into()],
        })
    }

    #[test]
    fn the_mark_is_found_again_and_holds_no_token() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(StateDir::find(Some(&dir.path().join("a/b"))));
        assert!(store.load(None).is_none());
        store.save(&record()).unwrap();
        let path = dir.path().join("a/b/claim.json");
        assert!(!std::fs::read_to_string(&path).unwrap().contains("secret-token"));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(dir.path().join("a/b")).unwrap().mode() & 0o777, 0o700);
        let found = store.load(Some("p")).unwrap();
        assert!(found.token_hash().unwrap().matches("secret-token"));
        assert!(!found.token_hash().unwrap().matches("secret-toke"));
        assert!(store.load(Some("other")).is_none());
    }

    #[test]
    fn a_link_is_no_place_for_it() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/tmp", dir.path().join("link")).unwrap();
        let store = Store::new(StateDir::find(Some(&dir.path().join("link"))));
        assert!(store.save(&record()).is_err());
    }
}
