//! API keys: kept as hashes, compared in constant time.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The keys that open the API.
#[derive(Clone, Default)]
pub struct ApiKeys(Vec<[u8; 32]>);

impl ApiKeys {
    /// Hashes keys; blank ones are no keys.
    pub fn new<S: AsRef<str>>(keys: impl IntoIterator<Item = S>) -> Self {
        Self(keys.into_iter().filter(|k| !k.as_ref().trim().is_empty()).map(|k| hash(k.as_ref().as_bytes())).collect())
    }

    /// Whether the API is open to everybody.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a key is one of them. Every key is compared, so that time tells nothing.
    pub fn accept(&self, key: &[u8]) -> bool {
        let given = hash(key);
        self.0.iter().fold(0u8, |found, known| found | known.ct_eq(&given).unwrap_u8()) == 1
    }
}

impl std::fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiKeys({})", self.0.len())
    }
}

fn hash(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_keys_open() {
        let keys = ApiKeys::new(["one", " ", "two"]);
        assert!(keys.accept(b"one") && keys.accept(b"two"));
        assert!(!keys.accept(b"") && !keys.accept(b" ") && !keys.accept(b"three"));
        assert_eq!(format!("{keys:?}"), "ApiKeys(2)");
        assert!(ApiKeys::new([""]).is_empty());
    }
}
