//! The secrets of an embedded platform, made once and kept with it.

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use super::home::Home;

/// The platform's secrets.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Keys {
    /// Key of the lifecycle API.
    pub api_key: String,
    daemon_seed: String,
    token_secret: String,
}

impl Keys {
    /// Reads the secrets of a platform, or makes and keeps them. A key that is given replaces the kept one.
    pub fn load_or_make(home: &Home, api_key: Option<&str>) -> Result<Self> {
        let mut keys = match std::fs::read_to_string(home.keys()) {
            Ok(text) => serde_json::from_str(&text)
                .with_context(|| format!("{} is damaged; remove it and start again", home.keys().display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::make()?,
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", home.keys().display())),
        };
        if let Some(key) = api_key {
            keys.api_key = key.to_owned();
        }
        home.write_secret(&home.keys(), &serde_json::to_string(&keys)?)?;
        Ok(keys)
    }

    fn make() -> Result<Self> {
        Ok(Self {
            api_key: format!("osb_{}", URL_SAFE_NO_PAD.encode(random()?)),
            daemon_seed: STANDARD.encode(random()?),
            token_secret: STANDARD.encode(random()?),
        })
    }

    /// Seed of the key that signs calls to the daemons.
    pub fn daemon_seed(&self) -> Result<[u8; 32]> {
        decode(&self.daemon_seed, "daemonSeed")
    }

    /// Secret from which execd's tokens are derived.
    pub fn token_secret(&self) -> Result<[u8; 32]> {
        decode(&self.token_secret, "tokenSecret")
    }
}

fn random() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).context("the system gives no random bytes")?;
    Ok(bytes)
}

fn decode(text: &str, name: &str) -> Result<[u8; 32]> {
    let bytes = STANDARD.decode(text).with_context(|| format!("{name} in keys.json is no base64"))?;
    bytes.try_into().map_err(|_| anyhow::anyhow!("{name} in keys.json is not 32 bytes"))
}
