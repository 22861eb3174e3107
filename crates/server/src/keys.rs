//! API keys: kept as hashes, compared in constant time, with what each may do and until when.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::tenants::Tenant;

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Look at sandboxes and pools.
    Read,
    /// Also make, use and end sandboxes.
    Run,
    /// Also change pools.
    Admin,
}

impl Scope {
    /// Its word in a file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Run => "run",
            Self::Admin => "admin",
        }
    }
}

/// One key.
#[derive(Clone)]
struct Key {
    hash: [u8; 32],
    name: Option<String>,
    scope: Scope,
    expires: Option<Timestamp>,
}

/// Whose key a request came with.
#[derive(Debug, Clone, PartialEq)]
pub struct Caller {
    /// First digits of the key's hash, or the key's name: it tells keys apart and opens nothing.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// Whose it is, on a server with tenants.
    pub tenant: Option<Arc<Tenant>>,
}

/// The keys that open the API.
#[derive(Clone, Default)]
pub struct ApiKeys(Vec<Key>);

impl ApiKeys {
    /// Keys that may do everything; blank ones are no keys.
    pub fn new<S: AsRef<str>>(keys: impl IntoIterator<Item = S>) -> Self {
        let keys = keys.into_iter().filter(|k| !k.as_ref().trim().is_empty());
        Self(
            keys.map(|k| Key { hash: hash(k.as_ref().as_bytes()), name: None, scope: Scope::Admin, expires: None })
                .collect(),
        )
    }

    /// One key, as it is or as `sha256:` and the hex digits of its hash.
    pub fn one(key: &str, scope: Scope) -> Result<Self, String> {
        let key = parse(key)?;
        Ok(Self(vec![Key { scope, ..key }]))
    }

    /// Reads a file of keys, one a line: `KEY [name=N] [scope=read|run|admin] [expires=TIME]`. KEY is the key itself or
    /// `sha256:` and the hex digits of its hash. Empty lines and lines that begin with `#` are passed over. The error
    /// says what is wrong in which line, and never what the line holds.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text =
            std::fs::read_to_string(path).map_err(|error| format!("{} can't be read: {error}", path.display()))?;
        let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let keys = lines
            .map(|(number, line)| parse(line).map_err(|why| format!("{} line {number}: {why}", path.display())))
            .collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err(format!("{} holds no key; write one a line", path.display()));
        }
        Ok(Self(keys))
    }

    /// These keys and those.
    #[must_use]
    pub fn and(mut self, more: Self) -> Self {
        self.0.extend(more.0);
        self
    }

    /// Whether the API is open to everybody.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whose key it is. Every key is compared, so that time tells nothing.
    pub fn find(&self, key: &[u8], now: Timestamp) -> Option<Caller> {
        let given = hash(key);
        let mut found = None;
        for known in &self.0 {
            if bool::from(known.hash.ct_eq(&given)) && known.expires.is_none_or(|end| now < end) {
                found = Some(known);
            }
        }
        found.map(|key| Caller {
            name: key.name.clone().unwrap_or_else(|| fingerprint(&key.hash)),
            scope: key.scope,
            tenant: None,
        })
    }
}

fn parse(line: &str) -> Result<Key, String> {
    let mut words = line.split_whitespace();
    let first = words.next().unwrap_or_default();
    let hash = match first.strip_prefix("sha256:") {
        Some(digits) => unhex(digits).ok_or("sha256: is followed by the 64 hex digits of a hash")?,
        None => hash(first.as_bytes()),
    };
    let mut key = Key { hash, name: None, scope: Scope::Admin, expires: None };
    for word in words {
        match word.split_once('=') {
            Some(("name", name)) if !name.is_empty() => key.name = Some(name.to_owned()),
            Some(("scope", scope)) => {
                let scopes = [Scope::Read, Scope::Run, Scope::Admin];
                let known = scopes.into_iter().find(|s| s.as_str() == scope);
                key.scope = known.ok_or("scope is read, run or admin")?;
            }
            Some(("expires", time)) => {
                key.expires = Some(time.parse().map_err(|_| "expires is a time such as 2027-01-31T00:00:00Z")?);
            }
            _ => return Err("after the key come name=, scope= and expires=, and nothing else".to_owned()),
        }
    }
    Ok(key)
}

fn unhex(digits: &str) -> Option<[u8; 32]> {
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// First digits of a key's hash.
pub(crate) fn fingerprint(hash: &[u8]) -> String {
    let digits = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("key-{digits}")
}

impl std::fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiKeys({})", self.0.len())
    }
}

/// The hash of a key.
pub(crate) fn hash(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_keys_open() {
        let now = Timestamp::UNIX_EPOCH;
        let keys = ApiKeys::new(["one", " ", "two"]);
        assert!(keys.find(b"one", now).is_some() && keys.find(b"two", now).is_some());
        assert!([b"" as &[u8], b" ", b"three"].iter().all(|key| keys.find(key, now).is_none()));
        assert_eq!(format!("{keys:?}"), "ApiKeys(2)");
        assert!(ApiKeys::new([""]).is_empty());
    }

    #[test]
    fn lines_of_a_file() {
        let now: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
        let plain = parse("secret name=ci scope=run expires=2027-01-01T00:00:00Z").unwrap();
        // SHA-256 of "secret".
        let hashed = parse("sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b").unwrap();
        let caller = |key: &Key| ApiKeys(vec![key.clone()]).find(b"secret", now);
        assert_eq!(caller(&plain), Some(Caller { name: "ci".to_owned(), scope: Scope::Run, tenant: None }));
        assert_eq!(
            caller(&hashed),
            Some(Caller { name: "key-2bb80d537b1d".to_owned(), scope: Scope::Admin, tenant: None })
        );
        let late = parse("secret expires=2026-01-01T00:00:00Z").unwrap();
        assert_eq!(caller(&late), None);
        for bad in ["sha256:12", "k scope=all", "k expires=soon", "k more", "k name="] {
            let why = parse(bad).err().unwrap();
            assert!(!why.contains("k ") || bad.starts_with("k "), "{why}");
        }
        assert!(Scope::Read < Scope::Run && Scope::Run < Scope::Admin);
    }
}
