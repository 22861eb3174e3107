//! Signed calls to execd and task-executor.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::ids::PodUid;

/// The longest time, in seconds, for which a signature may be asked to hold.
pub const MAX_LIFETIME_SECONDS: u64 = 120;

/// How far, in seconds, a daemon's clock may be behind the platform's.
const CLOCK_SKEW_SECONDS: u64 = 30;

/// What a signed call does. The verb is signed, so that one call can't be replayed as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `POST /v1/claim` of execd or task-executor.
    Claim,
    /// `GET /v1/claim/entrypoint` of execd.
    EntrypointStatus,
    /// `POST /v1/reset`.
    Reset,
    /// `POST /setTasks`, `POST /tasks` and `DELETE /tasks/{name}` of task-executor; for the last the body is the task's name.
    SetTasks,
    /// `GET /getTasks` and `GET /tasks/{name}` of task-executor.
    GetTasks,
}

impl Verb {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::EntrypointStatus => "entrypoint-status",
            Self::Reset => "reset",
            Self::SetTasks => "set-tasks",
            Self::GetTasks => "get-tasks",
        }
    }
}

/// Why a signed call was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The key is not 32 bytes of base64, or no point of the curve.
    #[error("the daemon key is not the base64 of an Ed25519 public key")]
    BadKey,
    /// The call carries no signature.
    #[error("the call is not signed; header X-OpenSandbox-Signature is missing")]
    Missing,
    /// The header has not the form `v1.<unix seconds>.<base64url>`.
    #[error("the signature has not the form v1.<unix seconds>.<base64url>")]
    Malformed,
    /// The signature has ended, or claims to hold longer than any may.
    #[error("the signature is out of its time")]
    Expired,
    /// The signature is not over this pod, verb and body by this key.
    #[error("the signature is not the platform's for this pod, call and body")]
    Wrong,
}

fn message(pod: &PodUid, verb: Verb, expires: u64, body: &[u8]) -> Vec<u8> {
    let mut text = format!("opensandbox-daemon-v1\n{pod}\n{}\n{expires}\n", verb.as_str()).into_bytes();
    text.extend_from_slice(&Sha256::digest(body));
    text
}

/// The platform's signing half.
#[derive(Clone)]
pub struct Signer(SigningKey);

impl Signer {
    /// Makes the key pair from a 32-byte secret seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The public half, as it goes into a pod's environment.
    pub fn daemon_key(&self) -> String {
        STANDARD.encode(self.0.verifying_key().as_bytes())
    }

    /// The value of the signature header for one call. `now` is Unix time in seconds; the
    /// signature holds for `lifetime` seconds, at most [`MAX_LIFETIME_SECONDS`].
    pub fn sign(&self, pod: &PodUid, verb: Verb, body: &[u8], now: u64, lifetime: u64) -> String {
        let expires = now + lifetime.min(MAX_LIFETIME_SECONDS);
        let signature = self.0.sign(&message(pod, verb, expires, body));
        format!("v1.{expires}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()))
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Signer").field(&self.daemon_key()).finish()
    }
}

/// The daemon's verifying half: the platform's public key and the pod it serves.
#[derive(Debug, Clone)]
pub struct DaemonKey {
    key: VerifyingKey,
    pod: PodUid,
}

impl DaemonKey {
    /// Reads the key as the environment carries it.
    pub fn new(key: &str, pod: PodUid) -> Result<Self, AuthError> {
        let bytes = STANDARD.decode(key.trim()).map_err(|_| AuthError::BadKey)?;
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| AuthError::BadKey)?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| AuthError::BadKey)?;
        Ok(Self { key, pod })
    }

    /// The pod this daemon serves.
    pub fn pod(&self) -> &PodUid {
        &self.pod
    }

    /// Checks the signature header of one call. `now` is Unix time in seconds.
    pub fn verify(&self, verb: Verb, body: &[u8], header: Option<&str>, now: u64) -> Result<(), AuthError> {
        let mut parts = header.ok_or(AuthError::Missing)?.splitn(3, '.');
        let (Some("v1"), Some(expires), Some(signature)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(AuthError::Malformed);
        };
        let expires: u64 = expires.parse().map_err(|_| AuthError::Malformed)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| AuthError::Malformed)?;
        let signature = Signature::from_slice(&signature).map_err(|_| AuthError::Malformed)?;
        if now > expires.saturating_add(CLOCK_SKEW_SECONDS) || expires > now + MAX_LIFETIME_SECONDS + CLOCK_SKEW_SECONDS
        {
            return Err(AuthError::Expired);
        }
        self.key.verify_strict(&message(&self.pod, verb, expires, body), &signature).map_err(|_| AuthError::Wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn pair() -> (Signer, DaemonKey) {
        let signer = Signer::from_seed(&[7; 32]);
        let key = DaemonKey::new(&signer.daemon_key(), "pod-1".into()).unwrap();
        (signer, key)
    }

    #[test]
    fn the_signed_call_is_accepted() {
        let (signer, key) = pair();
        let header = signer.sign(key.pod(), Verb::Claim, b"{}", NOW, 30);
        assert_eq!(key.verify(Verb::Claim, b"{}", Some(&header), NOW), Ok(()));
    }

    #[test]
    fn every_other_call_is_refused() {
        let (signer, key) = pair();
        let header = signer.sign(key.pod(), Verb::Claim, b"{}", NOW, 30);
        let other_pod = signer.sign(&"pod-2".into(), Verb::Claim, b"{}", NOW, 30);
        let other_key = Signer::from_seed(&[8; 32]).sign(key.pod(), Verb::Claim, b"{}", NOW, 30);
        for (name, verb, body, header, now, want) in [
            ("unsigned", Verb::Claim, &b"{}"[..], None, NOW, AuthError::Missing),
            ("other verb", Verb::Reset, b"{}", Some(&header), NOW, AuthError::Wrong),
            ("other body", Verb::Claim, b"{ }", Some(&header), NOW, AuthError::Wrong),
            ("other pod", Verb::Claim, b"{}", Some(&other_pod), NOW, AuthError::Wrong),
            ("other key", Verb::Claim, b"{}", Some(&other_key), NOW, AuthError::Wrong),
            ("too late", Verb::Claim, b"{}", Some(&header), NOW + 61, AuthError::Expired),
            ("far too early", Verb::Claim, b"{}", Some(&header), NOW - 1_000, AuthError::Expired),
            ("no form", Verb::Claim, b"{}", Some(&"v2.1.x".to_owned()), NOW, AuthError::Malformed),
        ] {
            assert_eq!(key.verify(verb, body, header.map(String::as_str), now), Err(want), "{name}");
        }
    }
}
