//! Same key, same sandbox: the sandbox's name is made from the key, so that any replica, before
//! and after a restart, meets the same object and Kubernetes itself refuses a second one.

use api_types::ErrorCode;
use http::HeaderMap;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::error::ApiError;

/// Longest key.
const MAX_KEY: usize = 255;

/// An idempotency key with what it came with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Id of the sandbox of this key.
    pub id: String,
    /// SHA-256 of the request, hex.
    pub request_hash: String,
}

/// Reads the header.
pub fn key(headers: &HeaderMap, body: &[u8], tenant: Option<&str>) -> Result<Option<Key>, ApiError> {
    let Some(value) = headers.get(api_types::names::headers::IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let text = value.to_str().map(str::trim).unwrap_or_default();
    if text.is_empty() || text.len() > MAX_KEY {
        return Err(ApiError::new(
            ErrorCode::InvalidRequest,
            format!("Idempotency-Key: is 1 to {MAX_KEY} visible ASCII characters"),
        ));
    }
    // Bodies that differ only in white space or the order of members are the same request.
    let canonical = serde_json::from_slice::<serde_json::Value>(body).map(sorted).unwrap_or_default();
    Ok(Some(Key { id: id_of(text, tenant), request_hash: hex(&Sha256::digest(canonical.to_string())) }))
}

/// A UUID made from the key; version 8 is the one for own constructions (RFC 9562).
///
/// A tenant's keys are its own: the name of a tenant can't hold the line break that ends it here.
fn id_of(key: &str, tenant: Option<&str>) -> String {
    let of_tenant = tenant.map(|tenant| format!("{tenant}\n")).unwrap_or_default();
    let digest = Sha256::new().chain_update(b"opensandbox-idempotency-v1\n").chain_update(of_tenant);
    let digest = digest.chain_update(key).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes[6] = (bytes[6] & 0x0f) | 0x80;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    Uuid::from_bytes(bytes).to_string()
}

fn sorted(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(members) => {
            let members: std::collections::BTreeMap<_, _> = members.into_iter().map(|(k, v)| (k, sorted(v))).collect();
            Value::Object(members.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, body: &str) -> Key {
        let mut headers = HeaderMap::new();
        headers.insert("idempotency-key", text.parse().unwrap());
        key(&headers, body.as_bytes(), None).unwrap().unwrap()
    }

    #[test]
    fn the_same_key_names_the_same_sandbox_and_another_body_is_told_apart() {
        let first = of("k", r#"{"a":1,"b":{"c":[1,2],"d":2}}"#);
        assert_eq!(first, of(" k ", r#"{ "b": {"d":2,"c":[1,2]}, "a": 1 }"#));
        assert_eq!(first.id, of("k", "{}").id);
        assert_ne!(first.request_hash, of("k", "{}").request_hash);
        assert_ne!(first.id, of("l", "{}").id);
        assert_ne!(id_of("k", Some("red")), id_of("k", Some("blue")));
        assert_eq!(Uuid::parse_str(&first.id).unwrap().get_version_num(), 8);
    }

    #[test]
    fn a_key_that_is_none_is_refused() {
        let mut headers = HeaderMap::new();
        assert_eq!(key(&headers, b"", None).unwrap(), None);
        headers.insert("idempotency-key", "x".repeat(256).parse().unwrap());
        assert!(key(&headers, b"", None).is_err());
    }
}
