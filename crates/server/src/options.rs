//! What the program is told: flags and environment over a TOML file over defaults.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Parser;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde::Deserialize;
use server::{ApiKeys, Config, EndpointMode};

/// The OpenSandbox lifecycle server.
#[derive(Parser)]
#[command(name = "opensandbox-server", version, about)]
pub struct Options {
    /// Configuration file, TOML.
    #[arg(long, env = "SANDBOX_CONFIG_PATH")]
    config: Option<PathBuf>,
    /// Address to listen on [default: 127.0.0.1].
    #[arg(long, env = "OPENSANDBOX_SERVER_HOST")]
    host: Option<String>,
    /// Port to listen on [default: 8080].
    #[arg(long, env = "OPENSANDBOX_SERVER_PORT")]
    port: Option<u16>,
    /// API key; one is made and printed when none is given.
    #[arg(long, env = "OPENSANDBOX_SERVER_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// `YES` serves everybody, without a key.
    #[arg(long, env = "OPENSANDBOX_INSECURE_SERVER")]
    insecure: Option<String>,
    /// Kubeconfig; without it the service account of the pod, or the user's own file.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Namespace of sandboxes and pools [default: default].
    #[arg(long, env = "OPENSANDBOX_NAMESPACE")]
    namespace: Option<String>,
    /// File with the platform's secret, 32 bytes in base64; the controller has the same.
    #[arg(long, env = "OPENSANDBOX_TOKEN_SECRET_FILE")]
    token_secret_file: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    server: ServerSection,
    kubernetes: KubernetesSection,
    runtime: RuntimeSection,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ServerSection {
    host: Option<String>,
    port: Option<u16>,
    api_key: Option<String>,
    /// Public `host[:port]` of proxy addresses.
    eip: Option<String>,
    max_sandbox_timeout_seconds: Option<i64>,
    endpoints: EndpointMode,
    token_secret_file: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct KubernetesSection {
    kubeconfig_path: Option<PathBuf>,
    namespace: Option<String>,
    sandbox_create_timeout_seconds: Option<u64>,
    pool_acquisition_timeout_seconds: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RuntimeSection {
    execd_image: Option<String>,
}

/// What the program runs with.
pub struct Settings {
    /// Address to listen on.
    pub host: String,
    /// Port to listen on.
    pub port: u16,
    /// The server's configuration.
    pub config: Config,
    /// The key that was made because none was given; its owner has to be told.
    pub made_key: Option<String>,
    kubeconfig: Option<PathBuf>,
}

impl Options {
    /// Puts flags, environment and file together.
    pub fn settle(self) -> anyhow::Result<Settings> {
        let file = match &self.config {
            Some(path) => read(path)?,
            None => File::default(),
        };
        let insecure = match self.insecure.as_deref() {
            Some("YES") => true,
            Some(other) => anyhow::bail!("--insecure is {other:?}; say YES, in capitals, to serve everybody"),
            None => false,
        };
        let given = self.api_key.or(file.server.api_key).filter(|key| !key.trim().is_empty());
        let made_key = (given.is_none() && !insecure).then(|| uuid::Uuid::new_v4().simple().to_string());
        let api_keys = ApiKeys::new(given.iter().chain(&made_key));
        let secret = self.token_secret_file.or(file.server.token_secret_file);
        let secret = secret.context("give --token-secret-file: the secret that controller and server share")?;
        let mut config = Config {
            api_keys,
            allow_open: insecure,
            token_secret: read_secret(&secret)?,
            endpoints: file.server.endpoints,
            public_host: file.server.eip,
            max_timeout: file.server.max_sandbox_timeout_seconds,
            ..Config::default()
        };
        if let Some(namespace) = self.namespace.or(file.kubernetes.namespace) {
            config.namespace = namespace;
        }
        if let Some(image) = file.runtime.execd_image {
            config.execd_image = image;
        }
        if let Some(seconds) = file.kubernetes.sandbox_create_timeout_seconds {
            config.limits.create_timeout = Duration::from_secs(seconds);
        }
        if let Some(seconds) = file.kubernetes.pool_acquisition_timeout_seconds {
            config.limits.acquisition_timeout = Duration::from_secs(seconds);
        }
        Ok(Settings {
            host: self.host.or(file.server.host).unwrap_or_else(|| "127.0.0.1".to_owned()),
            port: self.port.or(file.server.port).unwrap_or(8080),
            config,
            made_key,
            kubeconfig: self.kubeconfig.or(file.kubernetes.kubeconfig_path),
        })
    }
}

impl Settings {
    /// A client of the Kubernetes API.
    pub async fn client(&self) -> anyhow::Result<kube::Client> {
        let config = match &self.kubeconfig {
            Some(path) => {
                let file = Kubeconfig::read_from(path).with_context(|| format!("can't read {}", path.display()))?;
                kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
            }
            None => kube::Config::infer().await.context("found no Kubernetes: give --kubeconfig")?,
        };
        Ok(kube::Client::try_from(config)?)
    }
}

fn read(path: &Path) -> anyhow::Result<File> {
    let text = std::fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("can't use {}", path.display()))
}

fn read_secret(path: &Path) -> anyhow::Result<[u8; 32]> {
    let text = std::fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
    let bytes = STANDARD.decode(text.trim()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    // The text itself is a secret and stays out of the message.
    bytes.with_context(|| format!("{} does not hold 32 bytes in base64", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_named() {
        let error = toml::from_str::<File>("[server]\nhots = 'x'\n").err().unwrap().to_string();
        assert!(error.contains("hots") && error.contains("host"), "{error}");
    }

    #[test]
    fn what_older_files_say_is_understood() {
        let file: File =
            toml::from_str("[kubernetes]\nnamespace = 'x'\npool_acquisition_timeout_seconds = 20\n").unwrap();
        assert_eq!(file.kubernetes.pool_acquisition_timeout_seconds, Some(20));
        assert_eq!(file.kubernetes.namespace.as_deref(), Some("x"));
    }
}
