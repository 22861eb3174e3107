//! Random names, injectable.

/// Letters and digits that spell no words and are not mistaken for one another, as Kubernetes uses them.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Letters of a suffix: 27^8, some 2.8e11 names for each pool.
const SUFFIX_LENGTH: usize = 8;

/// Where the controller takes random name suffixes from.
pub trait Ids: Send + Sync {
    /// A suffix that was not given before.
    fn suffix(&self) -> String;
}

/// The machine's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct RandomIds;

impl Ids for RandomIds {
    fn suffix(&self) -> String {
        let bytes = uuid::Uuid::new_v4().into_bytes();
        bytes.iter().take(SUFFIX_LENGTH).map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_fit_a_pod_name() {
        let suffix = RandomIds.suffix();
        assert_eq!(suffix.len(), SUFFIX_LENGTH);
        assert!(suffix.bytes().all(|b| ALPHABET.contains(&b)), "{suffix}");
    }
}
