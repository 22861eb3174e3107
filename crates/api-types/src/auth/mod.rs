//! How the platform proves itself to the daemons in a pod, and what it hands to their owner.
//!
//! A pod made by the controller carries an Ed25519 public key and its own UID. Every call that
//! changes who owns the pod, or what runs in it, is signed over the pod's UID, a verb and the
//! body, for a short time. The token that opens execd to its owner is an HMAC over the sandbox and
//! the pod, so nothing secret is stored and a token dies with the pod's owner.

mod signature;
mod token;

pub use signature::{AuthError, DaemonKey, MAX_LIFETIME_SECONDS, Signer, Verb};
pub use token::TokenSecret;
