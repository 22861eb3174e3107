//! A gateway in front of the sandboxes: addresses that lead through it, and signatures that open a port for a while.
//!
//! The form of both is OpenSandbox's, so that its gateway understands them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

/// Header that tells a gateway where a request goes.
pub const INGRESS_TO: &str = "OpenSandbox-Ingress-To";

/// How a gateway is told where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// By the host name.
    Wildcard,
    /// By a header.
    Header,
    /// By the path.
    Uri,
}

/// A gateway.
#[derive(Clone)]
pub struct Gateway {
    /// `host[:port]`, or `*.host[:port]`.
    pub address: String,
    /// How it is told where a request goes.
    pub route: Route,
    /// The key that signs; without it nothing is signed.
    pub signer: Option<Signer>,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("address", &self.address).field("route", &self.route).finish_non_exhaustive()
    }
}

/// A key that signs.
#[derive(Clone)]
pub struct Signer {
    id: char,
    secret: Vec<u8>,
}

impl Signer {
    /// The active one of keys given as `(id, base64)`.
    pub fn choose(keys: &[(String, String)], active: &str) -> Result<Self, String> {
        for (id, secret) in keys {
            let one = id.len() == 1 && id.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
            if !one {
                return Err(format!("the key id {id:?} is not one of 0-9 and a-z"));
            }
            if STANDARD.decode(secret).map_or(0, |bytes| bytes.len()) == 0 {
                return Err(format!("key {id} is no base64"));
            }
        }
        let (id, secret) =
            keys.iter().find(|(id, _)| id == active).ok_or_else(|| format!("no key has the id {active:?}"))?;
        let id = id.chars().next().unwrap_or_default();
        Ok(Self { id, secret: STANDARD.decode(secret).unwrap_or_default() })
    }

    /// Signs a port of a sandbox until `expires`, which is in base 36.
    fn sign(&self, id: &str, port: u16, expires: &str) -> String {
        let canonical = format!("v1\nshort\n{id}\n{port}\n{expires}\n");
        let mut digest = Sha256::new();
        for part in [self.secret.as_slice(), canonical.as_bytes()] {
            digest.update(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            digest.update(part);
        }
        let digits: String = digest.finalize().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        format!("{digits}{}", self.id)
    }
}

impl Gateway {
    /// The address of a port and the headers to send there; signed when `expires`, in seconds, is given.
    pub fn endpoint(&self, id: &str, port: u16, expires: Option<u64>) -> (String, BTreeMap<String, String>) {
        let signed = expires.zip(self.signer.as_ref()).map(|(expires, signer)| {
            let expires = base36(expires);
            let signature = signer.sign(id, port, &expires);
            (expires, signature)
        });
        let by = |separator: &str| match &signed {
            Some((expires, signature)) => format!("{id}{separator}{port}{separator}{expires}{separator}{signature}"),
            None => format!("{id}{separator}{port}"),
        };
        match self.route {
            Route::Wildcard => {
                let base = self.address.strip_prefix("*.").unwrap_or(&self.address);
                (format!("{}.{base}", by("-")), BTreeMap::new())
            }
            Route::Uri => (format!("{}/{}", self.address, by("/")), BTreeMap::new()),
            Route::Header => (self.address.clone(), BTreeMap::from([(INGRESS_TO.to_owned(), by("-"))])),
        }
    }
}

/// A number in base 36, without leading zeros.
fn base36(mut number: u64) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut digits = Vec::new();
    loop {
        digits.push(DIGITS[(number % 36) as usize] as char);
        number /= 36;
        if number == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(address: &str, route: Route) -> Gateway {
        let keys = [("a".to_owned(), "c2VjcmV0LWtleS1ieXRlcw==".to_owned())];
        Gateway { address: address.to_owned(), route, signer: Some(Signer::choose(&keys, "a").unwrap()) }
    }

    #[test]
    fn signatures_are_those_of_the_published_gateway() {
        let signer = gateway("g", Route::Uri).signer.unwrap();
        assert_eq!(base36(1_999_999_999), "x2qxvj");
        assert_eq!(base36(u64::MAX), "3w5e11264sgsf");
        assert_eq!(base36(0), "0");
        assert_eq!(signer.sign("90bd8c60-93bd-4be4-a450-e523a15108d0", 8080, "x2qxvj"), "75998ebda");
        assert_eq!(signer.sign("sbx-1", 44772, "x2qxvk"), "72a8b2d7a");
    }

    #[test]
    fn the_three_routes_signed_and_unsigned() {
        let of = |address: &str, route, expires| gateway(address, route).endpoint("sbx-1", 44772, expires);
        let signed = Some(2_000_000_000);
        assert_eq!(of("*.g.example", Route::Wildcard, None).0, "sbx-1-44772.g.example");
        assert_eq!(of("*.g.example", Route::Wildcard, signed).0, "sbx-1-44772-x2qxvk-72a8b2d7a.g.example");
        assert_eq!(of("g:80", Route::Uri, None).0, "g:80/sbx-1/44772");
        assert_eq!(of("g:80", Route::Uri, signed).0, "g:80/sbx-1/44772/x2qxvk/72a8b2d7a");
        let (address, headers) = of("g:80", Route::Header, signed);
        assert_eq!((address.as_str(), headers[INGRESS_TO].as_str()), ("g:80", "sbx-1-44772-x2qxvk-72a8b2d7a"));
    }

    #[test]
    fn keys_that_are_none_are_refused() {
        let key = |id: &str, secret: &str| [(id.to_owned(), secret.to_owned())];
        assert!(Signer::choose(&key("A", "YQ=="), "A").is_err());
        assert!(Signer::choose(&key("a", "?"), "a").is_err());
        assert!(Signer::choose(&key("a", "YQ=="), "b").is_err());
    }
}
