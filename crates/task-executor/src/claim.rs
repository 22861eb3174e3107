//! Whose the pod is, where no execd remembers it: one owner until a reset, kept durably.

use std::collections::BTreeMap;
use std::path::PathBuf;

use api_types::ErrorCode;
use api_types::execd::{ClaimRequest, ClaimStatus, EntrypointState, EntrypointStatus};
use api_types::ids::{PodUid, SandboxId, SandboxUid};
use api_types::names::env;
use api_types::tasks::ProcessStatus;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::store;

/// File of the claim in the data directory.
const FILE: &str = "claim.json";

/// The owner, as a claim named it. Its token opens execd only, so it is not kept.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Name of the sandbox.
    pub sandbox_id: SandboxId,
    /// UID of the sandbox.
    pub sandbox_uid: SandboxUid,
    /// Epoch of the claim.
    pub epoch: u64,
    /// Environment of every task.
    pub env: BTreeMap<String, String>,
}

/// What is on disk.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    last_epoch: u64,
    owner: Option<Owner>,
}

/// What a claim comes to.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// It is the one that holds already.
    Same,
    /// It is to be written.
    Take,
}

fn decide(kept: &Kept, request: &ClaimRequest, pod: Option<&PodUid>) -> Result<Decision, ApiError> {
    if pod.is_some_and(|pod| *pod != request.pod_uid) {
        return Err(ApiError::new(ErrorCode::WrongPod, format!("this is not pod {}", request.pod_uid)));
    }
    if request.epoch < kept.last_epoch {
        let message = format!("epoch {} is older than {}, which this pod has seen", request.epoch, kept.last_epoch);
        return Err(ApiError::new(ErrorCode::StaleClaim, message));
    }
    match &kept.owner {
        Some(owner) if owner.sandbox_uid != request.sandbox_uid => {
            Err(ApiError::new(ErrorCode::ClaimedByAnother, "the pod has another owner until it is reset"))
        }
        Some(owner) if owner.epoch == request.epoch => Ok(Decision::Same),
        Some(_) => Ok(Decision::Take),
        None if request.epoch == kept.last_epoch && kept.last_epoch > 0 => {
            Err(ApiError::new(ErrorCode::StaleClaim, "this epoch was used before the pod was reset"))
        }
        None => Ok(Decision::Take),
    }
}

/// Checks the names and values of an environment.
pub fn check_env<'a>(vars: impl IntoIterator<Item = (&'a String, &'a String)>) -> Result<(), String> {
    for (name, value) in vars {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(format!("the variable name {name:?} is empty or holds = or NUL"));
        }
        if value.contains('\0') {
            return Err(format!("the value of variable {name} holds a NUL"));
        }
    }
    Ok(())
}

/// The claim on this pod.
pub struct Claims {
    path: PathBuf,
    pod: Option<PodUid>,
    kept: Mutex<Kept>,
}

impl Claims {
    /// Reads what is on disk. A file that can't be read keeps the executor from starting: it may be a claim.
    pub fn open(dir: &std::path::Path, pod: Option<PodUid>) -> std::io::Result<Self> {
        let path = dir.join(FILE);
        let kept = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Kept::default(),
            Err(error) => return Err(error),
        };
        Ok(Self { path, pod, kept: Mutex::new(kept) })
    }

    /// Takes a claim; when this returns the mark is durable.
    pub fn claim(&self, request: &ClaimRequest) -> Result<(), ApiError> {
        check_env(&request.env).map_err(|e| ApiError::new(ErrorCode::InvalidRequestBody, format!("env: {e}")))?;
        let mut kept = self.kept.lock();
        if decide(&kept, request, self.pod.as_ref())? == Decision::Same {
            return Ok(());
        }
        let owner = Owner {
            sandbox_id: request.sandbox_id.clone(),
            sandbox_uid: request.sandbox_uid.clone(),
            epoch: request.epoch,
            env: request.env.clone(),
        };
        self.keep(&mut kept, Kept { last_epoch: request.epoch, owner: Some(owner) })
    }

    /// Forgets the owner. Its epoch stays the oldest that is taken.
    pub fn forget(&self) -> Result<(), ApiError> {
        let mut kept = self.kept.lock();
        let next = Kept { owner: None, ..kept.clone() };
        self.keep(&mut kept, next)
    }

    fn keep(&self, kept: &mut Kept, next: Kept) -> Result<(), ApiError> {
        let text = serde_json::to_vec(&next).map_err(|e| ApiError::internal(e.to_string()))?;
        store::replace(&self.path, &text, true).map_err(|e| ApiError::storage(&e))?;
        *kept = next;
        Ok(())
    }

    /// What everybody may know.
    pub fn status(&self) -> ClaimStatus {
        let kept = self.kept.lock();
        ClaimStatus {
            claimed: kept.owner.is_some(),
            sandbox_uid: kept.owner.as_ref().map(|o| o.sandbox_uid.clone()),
            epoch: kept.owner.as_ref().map(|o| o.epoch),
            entrypoint: None,
        }
    }

    /// What the claim adds to the environment of every task.
    pub fn env(&self) -> BTreeMap<String, String> {
        let kept = self.kept.lock();
        let Some(owner) = &kept.owner else { return BTreeMap::new() };
        let mut env = BTreeMap::from([(env::SANDBOX_ID.to_owned(), owner.sandbox_id.to_string())]);
        env.extend(owner.env.clone());
        env
    }
}

/// The entrypoint's state as a claim tells it; `tail` is its last output.
pub fn entrypoint_status(status: Option<&ProcessStatus>, tail: Option<String>) -> EntrypointStatus {
    let mut told = EntrypointStatus {
        state: EntrypointState::None,
        exit_code: None,
        message: None,
        started_at: None,
        finished_at: None,
    };
    let Some(status) = status else { return told };
    told.state = EntrypointState::Running;
    told.started_at = status.running.as_ref().and_then(|r| r.started_at);
    if let Some(ended) = &status.terminated {
        told.state = EntrypointState::Exited;
        told.exit_code = Some(ended.exit_code);
        told.started_at = ended.started_at;
        told.finished_at = ended.finished_at;
        if ended.exit_code != 0 {
            told.message = match (&ended.message, tail) {
                (Some(message), Some(tail)) => Some(format!("{message}: {tail}")),
                (message, tail) => message.clone().or(tail),
            };
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(sandbox: &str, epoch: u64) -> ClaimRequest {
        ClaimRequest {
            sandbox_id: sandbox.into(),
            sandbox_uid: sandbox.into(),
            pod_uid: "pod".into(),
            epoch,
            token: "secret".into(),
            env: BTreeMap::from([("A".into(), "1".into())]),
            entrypoint: Vec::new(),
        }
    }

    fn code(result: Result<(), ApiError>) -> Option<ErrorCode> {
        result.err().map(|e| e.code)
    }

    #[test]
    fn one_owner_until_a_reset_and_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Claims::open(dir.path(), Some("pod".into())).unwrap();
        let claims = open();
        assert_eq!(code(claims.claim(&request("a", 3))), None);
        assert_eq!(code(claims.claim(&request("a", 3))), None);
        assert_eq!(code(claims.claim(&request("b", 4))), Some(ErrorCode::ClaimedByAnother));
        let claims = open();
        assert_eq!(code(claims.claim(&request("b", 4))), Some(ErrorCode::ClaimedByAnother));
        assert_eq!(claims.env().get("A").map(String::as_str), Some("1"));
        assert_eq!(claims.env().get("OPENSANDBOX_ID").map(String::as_str), Some("a"));
        claims.forget().unwrap();
        assert!(!claims.status().claimed && claims.env().is_empty());
        assert_eq!(code(claims.claim(&request("a", 3))), Some(ErrorCode::StaleClaim));
        assert_eq!(code(claims.claim(&request("b", 2))), Some(ErrorCode::StaleClaim));
        assert_eq!(code(claims.claim(&request("b", 4))), None);
        assert!(!std::fs::read_to_string(dir.path().join(FILE)).unwrap().contains("secret"));
    }

    #[test]
    fn another_pod_and_a_bad_name_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let claims = Claims::open(dir.path(), Some("other".into())).unwrap();
        assert_eq!(code(claims.claim(&request("a", 1))), Some(ErrorCode::WrongPod));
        let claims = Claims::open(dir.path(), None).unwrap();
        let mut bad = request("a", 1);
        bad.env.insert("A=B".into(), String::new());
        assert_eq!(code(claims.claim(&bad)), Some(ErrorCode::InvalidRequestBody));
        assert!(!claims.status().claimed);
    }
}
