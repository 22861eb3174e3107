//! Who owns this pod: the claim, its durable mark, and the entrypoint it brought.

mod decide;
mod entrypoint;
mod store;

use std::sync::Arc;

use api_types::ErrorCode;
use api_types::execd::{ClaimRequest, ClaimStatus, EntrypointStatus};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

pub use decide::{Decision, decide};
pub use entrypoint::Entrypoint;
pub use store::{ClaimRecord, EntrypointMark, StateDir, Store};

use crate::envs::{self, Env};
use crate::exec::Engine;

/// SHA-256 of a token: all that is kept of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Hash of a token.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Whether the token is the one, in constant time.
    pub fn matches(&self, token: &str) -> bool {
        self.0.ct_eq(&Self::of(token).0).into()
    }

    fn to_hex(self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }
}

/// Why a claim was refused.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// By the rules of ownership.
    #[error("{1}")]
    Refused(ErrorCode, String),
    /// It can't be used as it is.
    #[error("{0}")]
    Invalid(String),
    /// Its mark could not be written, so nothing was done.
    #[error("the claim cannot be kept, so it was not taken: {0}")]
    Store(std::io::Error),
}

struct Owner {
    record: ClaimRecord,
    entrypoint: Option<Entrypoint>,
}

/// The claim of this pod.
pub struct Claims {
    store: Store,
    /// Whether calls are signed by the platform.
    keyed: bool,
    pod_uid: Option<String>,
    owner: Mutex<Option<Owner>>,
}

impl Claims {
    /// Finds the claim that an earlier execd of this container took.
    pub fn load(store: Store, keyed: bool, pod_uid: Option<String>) -> Arc<Self> {
        let record = store.load(pod_uid.as_deref());
        let owner = record.map(|record| Owner { entrypoint: Entrypoint::adopt(&record), record });
        let inherited = owner.as_ref().and_then(|owner| owner.entrypoint.clone());
        let claims = Arc::new(Self { store, keyed, pod_uid, owner: Mutex::new(owner) });
        if let Some(entrypoint) = inherited {
            let noted = claims.clone();
            tokio::spawn(async move {
                entrypoint.foreign_end().await;
                noted.note_entrypoint_end();
            });
        }
        claims
    }

    /// Takes a claim: decides, writes the mark, starts the entrypoint, in this order and at once.
    ///
    /// # Errors
    /// See [`ClaimError`]; nothing was done then.
    pub fn claim(
        self: &Arc<Self>,
        request: &ClaimRequest,
        base: &Env,
        engine: &Engine,
    ) -> Result<ClaimStatus, ClaimError> {
        check(request).map_err(ClaimError::Invalid)?;
        let mut owner = self.owner.lock();
        match decide(owner.as_ref().map(|o| &o.record), request, self.pod_uid.as_deref(), self.keyed) {
            Decision::Refuse(code, message) => return Err(ClaimError::Refused(code, message)),
            Decision::Same => {}
            Decision::Renew => {
                if let Some(owner) = owner.as_mut() {
                    let mut record = owner.record.clone();
                    record.epoch = request.epoch;
                    record.token_sha256 = TokenHash::of(&request.token).to_hex();
                    self.store.save(&record).map_err(ClaimError::Store)?;
                    owner.record = record;
                }
            }
            Decision::Take => {
                let mut record = ClaimRecord::of(request);
                self.store.save(&record).map_err(ClaimError::Store)?;
                let entrypoint = (!request.entrypoint.is_empty()).then(|| {
                    let started = Entrypoint::start(&record, base, engine);
                    record.entrypoint_mark = started.mark();
                    started
                });
                if record.entrypoint_mark.is_some()
                    && let Err(error) = self.store.save(&record)
                {
                    tracing::warn!(%error, "cannot note the entrypoint's process");
                }
                if let Some(execution) = entrypoint.as_ref().and_then(Entrypoint::execution) {
                    let claims = self.clone();
                    tokio::spawn(async move {
                        execution.ended().await;
                        claims.note_entrypoint_end();
                    });
                }
                *owner = Some(Owner { record, entrypoint });
            }
        }
        Ok(owner.as_ref().map_or_else(unclaimed, |owner| owner.status(true)))
    }

    /// Keeps how the entrypoint ended, for an execd that comes after this one.
    fn note_entrypoint_end(&self) {
        let mut owner = self.owner.lock();
        let Some(owner) = owner.as_mut() else { return };
        let Some(entrypoint) = &owner.entrypoint else { return };
        let end = entrypoint.status();
        if end.state != api_types::execd::EntrypointState::Exited {
            return;
        }
        if let Some(mark) = owner.record.entrypoint_mark.as_mut() {
            mark.end = Some(end);
            if let Err(error) = self.store.save(&owner.record) {
                tracing::warn!(%error, "cannot note the entrypoint's end");
            }
        }
    }

    /// Whether the pod has an owner, and which.
    pub fn status(&self) -> ClaimStatus {
        self.owner.lock().as_ref().map_or_else(unclaimed, |owner| owner.status(false))
    }

    /// Whether the pod has an owner.
    pub fn claimed(&self) -> bool {
        self.owner.lock().is_some()
    }

    /// Whether the token is the owner's; `None` when there is no owner.
    pub fn token_matches(&self, token: &str) -> Option<bool> {
        let hash = self.owner.lock().as_ref().map(|owner| owner.record.token_hash());
        // A mark whose hash can't be read opens to nobody.
        hash.map(|hash| hash.is_some_and(|hash| hash.matches(token)))
    }

    /// Adds what the claim brought to an environment.
    pub fn overlay(&self, env: &mut Env) {
        if let Some(owner) = self.owner.lock().as_ref() {
            owner.record.overlay(env);
        }
    }

    /// The entrypoint of the claim.
    pub fn entrypoint(&self) -> Option<Entrypoint> {
        self.owner.lock().as_ref().and_then(|owner| owner.entrypoint.clone())
    }
}

impl Owner {
    fn status(&self, with_entrypoint: bool) -> ClaimStatus {
        let entrypoint = self.entrypoint.as_ref().filter(|_| with_entrypoint).map(Entrypoint::status);
        ClaimStatus {
            claimed: true,
            sandbox_uid: Some(self.record.sandbox_uid.clone()),
            epoch: Some(self.record.epoch),
            entrypoint,
        }
    }
}

fn unclaimed() -> ClaimStatus {
    ClaimStatus { claimed: false, sandbox_uid: None, epoch: None, entrypoint: None }
}

/// The entrypoint of a pod without owner, or of a claim that brought none.
pub fn no_entrypoint() -> EntrypointStatus {
    EntrypointStatus {
        state: api_types::execd::EntrypointState::None,
        exit_code: None,
        message: None,
        started_at: None,
        finished_at: None,
    }
}

fn check(request: &ClaimRequest) -> Result<(), String> {
    envs::validate(&request.env).map_err(|e| format!("env: {e}"))?;
    if request.sandbox_uid.as_str().is_empty() {
        return Err("sandboxUid is empty".to_owned());
    }
    if request.token.is_empty() {
        return Err("token is empty".to_owned());
    }
    if request.sandbox_id.as_str().contains('\0') {
        return Err("sandboxId contains a zero byte".to_owned());
    }
    match request.entrypoint.iter().position(|arg| arg.contains('\0')) {
        Some(index) => Err(format!("entrypoint[{index}] contains a zero byte")),
        None if request.entrypoint.first().is_some_and(String::is_empty) => Err("entrypoint[0] is empty".to_owned()),
        None => Ok(()),
    }
}
