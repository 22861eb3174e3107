//! From effective values to what the program runs with; what can only be judged together is judged here.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use telemetry::logs;

use super::value::Value;
use super::{Settings, SettingsError, secrets};
use crate::labels::{is_dns_label, is_object_name};
use crate::{ApiKeys, Config, EndpointMode, Gateway, Rate, Route, Signer};

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Chain, PEM.
    pub certificate: PathBuf,
    /// Key, PEM.
    pub key: PathBuf,
}

/// What the program runs with.
pub struct Program {
    /// Address to listen on: a name or an IP.
    pub host: String,
    /// Port to listen on.
    pub port: u16,
    /// Address of the admin listener.
    pub admin: Option<SocketAddr>,
    /// The server's configuration.
    pub config: Config,
    /// File with API keys, which may change.
    pub api_keys_file: Option<PathBuf>,
    /// File with tenants, which may change.
    pub tenants_file: Option<PathBuf>,
    /// Keys that did not come from the file.
    pub fixed_keys: ApiKeys,
    /// The key that was made because none was given; its owner has to be told.
    pub made_key: Option<String>,
    /// TLS of the main listener.
    pub tls: Option<TlsFiles>,
    /// Level of the log.
    pub log_level: String,
    /// Format of the log.
    pub log_format: logs::Format,
    /// What has no effect, to be said once.
    pub notices: Vec<String>,
    kubeconfig: Option<PathBuf>,
    skip_tls_verify: bool,
}

impl Program {
    pub(super) fn build(mut settings: Settings) -> Result<Self, SettingsError> {
        let mut config = Config::default();
        let s = &mut settings;
        let host = s.text("server.host").unwrap_or_else(|| "0.0.0.0".to_owned());
        if host.contains(['/', ' ']) {
            s.refuse("server.host", format_args!("{host:?} is no address; give an IP or a host name"));
        }
        let tls = tls_files(s);
        let tenants_file = super::tenancy::tenants(s, &mut config);
        let (made_key, api_keys_file) = keys(s, &mut config);
        let fixed_keys = ApiKeys::new(s.text("server.api_key").iter().chain(&made_key));
        match s.path("server.token_secret_file") {
            None => s.refuse(
                "server.token_secret_file",
                "is missing; give --token-secret-file, the secret of 32 bytes that controller and server share",
            ),
            Some(path) => match secrets::token_secret(&path) {
                Ok(secret) => config.token_secret = secret,
                Err(why) => s.refuse("server.token_secret_file", why),
            },
        }
        config.endpoints = match s.text("server.endpoints").as_deref() {
            Some("proxy") => EndpointMode::Proxy,
            Some("direct") => EndpointMode::Direct,
            _ => EndpointMode::Auto,
        };
        config.public_host = public_host(s);
        config.gateway = gateway(s);
        config.cors_origins = s.list("server.cors_allow_origins");
        config.max_timeout = s.integer("server.max_sandbox_timeout_seconds");
        if let Some(namespace) = s.text("kubernetes.namespace") {
            if !is_dns_label(&namespace) {
                s.refuse(
                    "kubernetes.namespace",
                    format_args!(
                        "{namespace:?} is no namespace; it is at most 63 lower-case letters, digits and inner dashes"
                    ),
                );
            }
            config.namespace = namespace;
        }
        if let Some(image) = s.text("runtime.execd_image") {
            if image.contains(char::is_whitespace) {
                s.refuse("runtime.execd_image", format_args!("{image:?} is no image reference"));
            }
            config.execd_image = image;
        }
        config.image_pull_policy = s.text("kubernetes.image_pull_policy").unwrap_or(config.image_pull_policy);
        if let Some(Value::Table(table)) = s.value("kubernetes.execd_init_resources") {
            match serde_json::to_value(table) {
                Ok(resources) => config.execd_resources = Some(resources),
                Err(error) => s.refuse("kubernetes.execd_init_resources", error),
            }
        }
        config.runtime_class = runtime_class(s);
        config.allowed_host_paths = s.list("storage.allowed_host_paths").into_iter().map(PathBuf::from).collect();
        config.volume_size = s.text("storage.volume_default_size").unwrap_or(config.volume_size);
        limits(s, &mut config);
        let log_level = s.text("log.level").unwrap_or_else(|| "info".to_owned());
        let log_format = match s.text("log.format").as_deref() {
            Some("json") => logs::Format::Json,
            _ => logs::Format::Text,
        };
        let admin = s.text("server.admin_bind_address").and_then(|text| text.parse().ok());
        let program = Self {
            host,
            port: s.integer("server.port").and_then(|port| u16::try_from(port).ok()).unwrap_or(8080),
            admin,
            config,
            api_keys_file,
            tenants_file,
            fixed_keys,
            made_key,
            tls,
            log_level,
            log_format,
            notices: std::mem::take(&mut s.notices),
            kubeconfig: s.path("kubernetes.kubeconfig_path"),
            skip_tls_verify: s.truth("kubernetes.insecure_skip_tls_verify"),
        };
        if settings.problems.is_empty() { Ok(program) } else { Err(SettingsError(settings.problems)) }
    }

    /// How Kubernetes is reached: the kubeconfig that was named, the pod's service account, or the user's own file.
    pub async fn kubernetes(&self) -> Result<kube::Config, SettingsError> {
        let mut config = match &self.kubeconfig {
            Some(path) => {
                let problem = |error: &dyn std::error::Error| {
                    let why = telemetry::chain(error);
                    SettingsError(vec![format!("kubernetes.kubeconfig_path: {} can't be used: {why}", path.display())])
                };
                let file = Kubeconfig::read_from(path).map_err(|error| problem(&error))?;
                let options = KubeConfigOptions::default();
                kube::Config::from_custom_kubeconfig(file, &options).await.map_err(|error| problem(&error))?
            }
            None => kube::Config::infer().await.map_err(|error| {
                let why = telemetry::chain(&error);
                SettingsError(vec![format!(
                    "kubernetes.kubeconfig_path: found no Kubernetes ({why}); give --kubeconfig, or run in a pod with a service account"
                )])
            })?,
        };
        config.accept_invalid_certs |= self.skip_tls_verify;
        let agent = http::HeaderValue::from_static(crate::USER_AGENT);
        config.headers.push((http::header::USER_AGENT, agent));
        Ok(config)
    }
}

pub(super) fn seconds(number: Option<i64>) -> Duration {
    Duration::from_secs(number.and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
}

/// Certificate and key come together, and are tried at once.
fn tls_files(s: &mut Settings) -> Option<TlsFiles> {
    match (s.path("server.tls_cert_file"), s.path("server.tls_key_file")) {
        (None, None) => None,
        (Some(_), None) => {
            s.refuse("server.tls_cert_file", "is given without a key; give --tls-key-file as well");
            None
        }
        (None, Some(_)) => {
            s.refuse("server.tls_key_file", "is given without a certificate; give --tls-cert-file as well");
            None
        }
        (Some(certificate), Some(key)) => {
            let files = TlsFiles { certificate, key };
            if let Err(error) = crate::tls::load(&files) {
                s.refuse("server.tls_cert_file", telemetry::chain(&error));
            }
            Some(files)
        }
    }
}

/// API keys, from both places; the made one, and the file.
fn keys(s: &mut Settings, config: &mut Config) -> (Option<String>, Option<PathBuf>) {
    let given = s.text("server.api_key");
    let mut keys = ApiKeys::new(&given);
    let file = s.path("server.api_keys_file");
    if let Some(path) = &file {
        match ApiKeys::read(path) {
            Ok(more) => keys = keys.and(more),
            Err(why) => s.refuse("server.api_keys_file", why),
        }
    }
    config.allow_open = s.text("server.insecure").is_some();
    if config.allow_open && !keys.is_empty() {
        s.refuse("server.insecure", "serves everybody, and a key is given as well; leave one of them out");
    }
    let made = (keys.is_empty() && !config.allow_open && s.text("tenants.provider").is_none())
        .then(|| uuid::Uuid::new_v4().simple().to_string());
    config.api_keys = keys.and(ApiKeys::new(&made));
    (made, file)
}

fn public_host(s: &mut Settings) -> Option<String> {
    let host = s.text("server.eip")?;
    let host = host.trim_end_matches('/').to_owned();
    if host.contains("://") || host.contains(char::is_whitespace) {
        s.refuse("server.eip", format_args!("{host:?} is no host; give host[:port], without a scheme"));
    }
    Some(host)
}

/// The gateway, when the mode asks for it.
fn gateway(s: &mut Settings) -> Option<Gateway> {
    if s.text("ingress.mode").as_deref() != Some("gateway") {
        return None;
    }
    let Some(address) = s.text("ingress.gateway.address") else {
        s.refuse("ingress.gateway.address", "is missing; the mode gateway needs host[:port]");
        return None;
    };
    let route = match s.text("ingress.gateway.route.mode").as_deref() {
        Some("wildcard") => Route::Wildcard,
        Some("uri") => Route::Uri,
        _ => Route::Header,
    };
    let wild = address.starts_with("*.");
    if address.contains("://") || wild != (route == Route::Wildcard) {
        let why = "is host[:port] without a scheme; it begins with *. for the route wildcard, and only for it";
        s.refuse("ingress.gateway.address", format_args!("{address:?}: {why}"));
    }
    let pairs = s.list("ingress.secure_access.keys");
    let split = |pair: &String| pair.split_once('=').map(|(id, key)| (id.to_owned(), key.to_owned()));
    let keys: Vec<(String, String)> = pairs.iter().filter_map(split).collect();
    let signer = match (keys.is_empty(), s.text("ingress.secure_access.active_key")) {
        (true, None) => None,
        (false, None) => {
            s.refuse("ingress.secure_access.active_key", "is missing; name one of the keys");
            None
        }
        (_, Some(active)) => match Signer::choose(&keys, &active) {
            Ok(signer) => Some(signer),
            Err(why) => {
                s.refuse("ingress.secure_access.keys", why);
                None
            }
        },
    };
    Some(Gateway { address, route, signer })
}

fn runtime_class(s: &mut Settings) -> Option<String> {
    let (kind, class) = (s.text("secure_runtime.type"), s.text("secure_runtime.k8s_runtime_class"));
    if kind.is_some() && class.is_none() {
        s.refuse("secure_runtime.type", "needs secure_runtime.k8s_runtime_class, the RuntimeClass that has it");
    }
    if class.as_deref().is_some_and(|class| !is_object_name(class)) {
        s.refuse("secure_runtime.k8s_runtime_class", "is no name of a RuntimeClass");
    }
    class
}

fn limits(s: &mut Settings, config: &mut Config) {
    let limits = &mut config.limits;
    limits.create_timeout = seconds(s.integer("kubernetes.sandbox_create_timeout_seconds"));
    limits.acquisition_timeout = seconds(s.integer("kubernetes.pool_acquisition_timeout_seconds"));
    limits.shutdown = seconds(s.integer("server.timeout_graceful_shutdown"));
    limits.shutdown_delay = seconds(s.integer("server.shutdown_delay_seconds"));
    limits.header_read = seconds(s.integer("server.timeout_keep_alive"));
    let natural = |key: &str| s.integer(key).and_then(|n| u32::try_from(n).ok()).and_then(NonZeroU32::new);
    limits.rate = natural("server.requests_per_second").map(|n| Rate::per_second(n, natural("server.requests_burst")));
    if let Some(streams) = s.integer("server.limit_streams").filter(|n| *n > 0) {
        limits.streams = usize::try_from(streams).unwrap_or(limits.streams).min(1 << 20);
    }
    if let Some(connections) = s.integer("server.limit_concurrency").filter(|n| *n > 0) {
        // More than the system's descriptors is no bound at all.
        limits.connections = usize::try_from(connections).unwrap_or(limits.connections).min(1 << 20);
    }
}
