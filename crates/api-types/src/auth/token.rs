//! The token that opens execd to the owner of its sandbox.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::ids::{PodUid, SandboxUid};

/// The platform's secret from which execd tokens are derived.
#[derive(Clone)]
pub struct TokenSecret([u8; 32]);

impl TokenSecret {
    /// Takes 32 secret bytes.
    pub fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    /// The token of one sandbox on one pod: what the claim hands to execd and the endpoint answer
    /// hands to the client.
    pub fn execd_token(&self, sandbox: &SandboxUid, pod: &PodUid) -> String {
        self.derive(&format!("opensandbox-execd-token-v1\n{sandbox}\n{pod}\n"))
    }

    /// The token that opens one port of one sandbox at the server's proxy, whatever pod it is on.
    pub fn port_token(&self, sandbox: &SandboxUid, port: u16) -> String {
        self.derive(&format!("opensandbox-port-token-v1\n{sandbox}\n{port}\n"))
    }

    fn derive(&self, text: &str) -> String {
        #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(text.as_bytes());
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    }
}

impl std::fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_of_one_sandbox_on_one_pod() {
        let secret = TokenSecret::new([1; 32]);
        let token = secret.execd_token(&"s1".into(), &"p1".into());
        assert_eq!(token.len(), 43);
        assert_eq!(token, secret.execd_token(&"s1".into(), &"p1".into()));
        assert_ne!(token, secret.execd_token(&"s2".into(), &"p1".into()));
        assert_ne!(token, secret.execd_token(&"s1".into(), &"p2".into()));
        assert_ne!(secret.port_token(&"s1".into(), 80), secret.port_token(&"s1".into(), 81));
        assert_ne!(token, TokenSecret::new([2; 32]).execd_token(&"s1".into(), &"p1".into()));
    }
}
