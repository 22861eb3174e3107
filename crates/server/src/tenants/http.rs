//! Tenants by HTTP: a service is asked whose a key is. Answers are kept for as long as it says; when it is away, an older
//! answer holds for a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api_types::names::headers::API_KEY;
use parking_lot::Mutex;
use reqwest::StatusCode;
use serde::Deserialize;
use telemetry::chain;
use tokio::time::Instant;

use super::{Identified, Quota, Tenant, Unavailable};
use crate::keys::{Scope, fingerprint, hash};
use crate::labels::{is_dns_label, value_problem};

/// How long an answer holds for which the service says no time.
const TTL: Duration = Duration::from_secs(30);
/// Longest time that an answer holds.
const MAX_TTL: Duration = Duration::from_secs(86_400);
/// How long a key counts as nobody's.
const REFUSAL_TTL: Duration = Duration::from_secs(5);
/// Most keys that are remembered.
const KEYS: usize = 4096;
/// Largest answer.
const ANSWER_BYTES: usize = 64 << 10;

/// Where the service is and how it is asked.
#[derive(Clone)]
pub struct ProviderSettings {
    /// URL that is asked with GET.
    pub endpoint: String,
    /// Header and value by which the service knows this server.
    pub auth: Option<(String, String)>,
    /// Longest time of one question.
    pub timeout: Duration,
    /// How long after its end an answer may stand in while the service is away.
    pub max_stale: Duration,
}

/// What the service answers.
#[derive(Deserialize)]
struct Wire {
    namespace: String,
    #[serde(default)]
    ttl: Option<f64>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    scope: Option<Scope>,
    #[serde(default)]
    quota: Quota,
}

/// What is known of a key.
#[derive(Clone)]
struct Known {
    whose: Option<Identified>,
    until: Instant,
}

/// One key's place: whoever holds it asks, the others wait for the answer.
type Place = Arc<tokio::sync::Mutex<Option<Known>>>;

/// The service.
pub struct Provider {
    settings: ProviderSettings,
    client: reqwest::Client,
    keys: Mutex<HashMap<[u8; 32], Place>>,
}

impl Provider {
    /// A service that is asked from now on; the error says which setting can't be used.
    pub fn new(settings: ProviderSettings) -> Result<Self, String> {
        let url = reqwest::Url::parse(&settings.endpoint).map_err(|error| format!("is no URL: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("is no URL of http or https".to_owned());
        }
        // Who embeds the server may have chosen TLS already; a second choice would be the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(settings.timeout)
            // A redirect would carry the caller's key elsewhere.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(crate::USER_AGENT)
            .build()
            .map_err(|error| format!("can't be used: {}", chain(&error)))?;
        Ok(Self { settings, client, keys: Mutex::default() })
    }

    /// Whose a key is.
    pub async fn find(&self, key: &[u8]) -> Result<Option<Identified>, Unavailable> {
        let digest = hash(key);
        let place = self.place(digest);
        let mut known = place.lock().await;
        let now = Instant::now();
        if let Some(fresh) = known.as_ref().filter(|k| now < k.until) {
            return Ok(fresh.whose.clone());
        }
        match self.ask(key, &digest).await {
            Ok((whose, ttl)) => {
                *known = Some(Known { whose: whose.clone(), until: Instant::now() + ttl });
                Ok(whose)
            }
            Err(Unavailable(why)) => {
                tracing::warn!(why, "the tenant provider can't be asked");
                let stale = known.as_ref().filter(|k| k.whose.is_some() && now < k.until + self.settings.max_stale);
                stale.map(|k| k.whose.clone()).ok_or(Unavailable(why))
            }
        }
    }

    /// The place of a key. Strangers' keys must not push out what is known: places that nobody waits in and that hold
    /// nothing any more go first, then those of refused keys.
    fn place(&self, digest: [u8; 32]) -> Place {
        let mut keys = self.keys.lock();
        if let Some(place) = keys.get(&digest) {
            return place.clone();
        }
        let place = Place::default();
        if keys.len() >= KEYS {
            let now = Instant::now();
            let stale = self.settings.max_stale;
            keys.retain(|_, place| match place.try_lock() {
                Ok(known) => known.as_ref().is_some_and(|k| k.whose.is_some() && now < k.until + stale),
                Err(_) => true,
            });
        }
        if keys.len() < KEYS {
            keys.insert(digest, place.clone());
        }
        place
    }

    async fn ask(&self, key: &[u8], digest: &[u8; 32]) -> Result<(Option<Identified>, Duration), Unavailable> {
        let mut request = self.client.get(&self.settings.endpoint).header(API_KEY, key);
        if let Some((name, value)) = &self.settings.auth {
            request = request.header(name, value);
        }
        // The error's own text may hold the URL, which is the operator's; never the key.
        let mut answer = request.send().await.map_err(|error| Unavailable(chain(&error.without_url())))?;
        match answer.status() {
            StatusCode::UNAUTHORIZED => return Ok((None, REFUSAL_TTL)),
            StatusCode::OK => {}
            other => return Err(Unavailable(format!("it answers {other}"))),
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| Unavailable(chain(&error.without_url())))? {
            if bytes.len() + chunk.len() > ANSWER_BYTES {
                return Err(Unavailable(format!("its answer is larger than {ANSWER_BYTES} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        let (identified, ttl) = read(&bytes, digest).map_err(Unavailable)?;
        Ok((Some(identified), ttl))
    }
}

/// Reads an answer.
fn read(bytes: &[u8], digest: &[u8; 32]) -> Result<(Identified, Duration), String> {
    let wire: Wire = serde_json::from_slice(bytes).map_err(|error| format!("its answer can't be read: {error}"))?;
    if !is_dns_label(&wire.namespace) {
        return Err(format!("it names the namespace {:?}, which is none", wire.namespace));
    }
    let name = wire.name.unwrap_or_else(|| wire.namespace.clone());
    if name.is_empty() || value_problem(&name).is_some() {
        return Err(format!("it names the tenant {name:?}, which can't be a label"));
    }
    let ttl = wire.ttl.map_or(TTL, |seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default().min(MAX_TTL));
    let tenant = Arc::new(Tenant { name, namespace: wire.namespace, quota: wire.quota, rate: None });
    let scope = wire.scope.unwrap_or(Scope::Run);
    Ok((Identified { tenant, scope, fingerprint: fingerprint(digest) }, ttl))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let read = |text: &str| read(text.as_bytes(), &[0; 32]);
        let (plain, ttl) = read(r#"{"namespace":"team-a"}"#).unwrap();
        assert_eq!((plain.tenant.name.as_str(), plain.scope, ttl), ("team-a", Scope::Run, TTL));
        let (full, ttl) =
            read(r#"{"namespace":"n","name":"a","scope":"read","ttl":1.5,"quota":{"sandboxes":2}}"#).unwrap();
        assert_eq!((full.tenant.name.as_str(), full.scope), ("a", Scope::Read));
        assert_eq!((full.tenant.quota.sandboxes, ttl), (Some(2), Duration::from_millis(1500)));
        assert_eq!(read(r#"{"namespace":"n","ttl":-1}"#).unwrap().1, Duration::ZERO);
        for bad in ["", "{}", r#"{"namespace":"A"}"#, r#"{"namespace":"n","name":"a b"}"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn strangers_do_not_fill_the_memory() {
        let settings = ProviderSettings {
            endpoint: "http://127.0.0.1:1/".to_owned(),
            auth: None,
            timeout: Duration::from_secs(1),
            max_stale: Duration::ZERO,
        };
        let provider = Provider::new(settings).unwrap();
        for i in 0..2 * KEYS {
            provider.place(hash(&i.to_be_bytes()));
        }
        assert!(provider.keys.lock().len() <= KEYS);
    }
}
