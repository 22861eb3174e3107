//! What the server is told before it starts.

use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::front::rate::Rate;
use crate::gateway::Gateway;
use crate::keys::ApiKeys;
use crate::tenants::Tenants;

/// Configuration of a [`Server`](crate::Server).
#[derive(Clone)]
pub struct Config {
    /// Namespace that holds the sandboxes and pools.
    pub namespace: String,
    /// Keys that open the API; none leaves it open, which only a loopback listener may be.
    pub api_keys: ApiKeys,
    /// Who the tenants are; with them `api_keys` opens nothing and `namespace` holds nothing.
    pub tenants: Option<Tenants>,
    /// Says in words that an open server may listen beyond loopback.
    pub allow_open: bool,
    /// The platform's secret that execd tokens are derived from; the controller has the same. The
    /// default is random, so that a forgotten one opens nothing.
    pub token_secret: [u8; 32],
    /// Which address an endpoint answer gives when the caller did not ask for the proxy.
    pub endpoints: EndpointMode,
    /// `host[:port]` to give in proxy addresses; absent is the `Host` the caller used.
    pub public_host: Option<String>,
    /// A gateway in front of the sandboxes; endpoint answers lead through it unless the proxy is asked for.
    pub gateway: Option<Gateway>,
    /// Image with `execd` and a shell, for sandboxes made from an image.
    pub execd_image: String,
    /// Origins of web pages that may call the API, `*` for all; none of them may while the API is open.
    pub cors_origins: Vec<String>,
    /// When nodes pull the images of sandboxes made from an image: `IfNotPresent`, `Always` or `Never`.
    pub image_pull_policy: String,
    /// `limits` and `requests` of the init container that brings execd.
    pub execd_resources: Option<serde_json::Value>,
    /// RuntimeClass of sandboxes made from an image.
    pub runtime_class: Option<String>,
    /// Directories of nodes that sandboxes may mount, with what is below them.
    pub allowed_host_paths: Vec<PathBuf>,
    /// Size of a new claim for which the caller names none.
    pub volume_size: String,
    /// Longest `timeout` a create may ask for, in seconds.
    pub max_timeout: Option<i64>,
    /// Bounds.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            namespace: "default".to_owned(),
            api_keys: ApiKeys::default(),
            tenants: None,
            allow_open: false,
            token_secret: random_secret(),
            endpoints: EndpointMode::Auto,
            public_host: None,
            gateway: None,
            execd_image: concat!("opensandbox/execd:", env!("CARGO_PKG_VERSION")).to_owned(),
            cors_origins: Vec::new(),
            image_pull_policy: "IfNotPresent".to_owned(),
            execd_resources: None,
            runtime_class: None,
            allowed_host_paths: Vec::new(),
            volume_size: "1Gi".to_owned(),
            max_timeout: None,
            limits: Limits::default(),
        }
    }
}

/// Two random UUIDs, and so 244 random bits, as 32 bytes.
fn random_secret() -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(uuid::Uuid::new_v4().as_bytes());
    digest.update(uuid::Uuid::new_v4().as_bytes());
    digest.finalize().into()
}

/// Which address an endpoint answer gives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointMode {
    /// The pod's address, as clients of the embedded cluster reach it.
    #[default]
    Auto,
    /// The pod's address.
    Direct,
    /// The server's proxy, also when the caller did not ask: for clients that can't reach pods.
    Proxy,
}

/// Bounds on what one request, and all of them together, may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest JSON body of any route; most routes take less.
    pub body_bytes: usize,
    /// From a request's head to the end of its JSON body.
    pub body_arrival: Duration,
    /// How often one caller may ask this replica; the proxy is not bounded by it.
    pub rate: Option<Rate>,
    /// Creates in progress at once.
    pub concurrent_creates: usize,
    /// Open connections.
    pub connections: usize,
    /// Proxied requests, tunnels and event streams at once.
    pub streams: usize,
    /// From a create to a sandbox that answers.
    pub create_timeout: Duration,
    /// From a create to a pod of the pool. The published SDKs stop reading after 30 s, so an answer
    /// must be on its way before that.
    pub acquisition_timeout: Duration,
    /// One call to the Kubernetes API.
    pub kube_timeout: Duration,
    /// The proxy's connection to a sandbox.
    pub proxy_connect: Duration,
    /// From a proxied request to the head of its answer.
    pub proxy_head: Duration,
    /// A proxied stream without a byte. execd's event streams send a ping well within it.
    pub proxy_idle: Duration,
    /// A proxied WebSocket without a byte: terminals rest for long.
    pub tunnel_idle: Duration,
    /// From a connection to the end of its request's head.
    pub header_read: Duration,
    /// A caller that takes nothing of what is sent to it for so long is cut off.
    pub write_stall: Duration,
    /// From a connection to the end of its TLS handshake.
    pub handshake: Duration,
    /// From the stop, when `/readyz` begins to fail, to the last accepted connection: load balancers take a moment
    /// to look elsewhere.
    pub shutdown_delay: Duration,
    /// From the last accepted connection to the end of the last request.
    pub shutdown: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 1 << 20,
            body_arrival: Duration::from_secs(30),
            rate: None,
            concurrent_creates: 1024,
            connections: 8192,
            streams: 4096,
            create_timeout: Duration::from_secs(60),
            acquisition_timeout: Duration::from_secs(25),
            kube_timeout: Duration::from_secs(10),
            proxy_connect: Duration::from_secs(5),
            proxy_head: Duration::from_secs(180),
            proxy_idle: Duration::from_secs(180),
            tunnel_idle: Duration::from_secs(3600),
            header_read: Duration::from_secs(30),
            write_stall: Duration::from_secs(180),
            handshake: Duration::from_secs(10),
            shutdown_delay: Duration::ZERO,
            shutdown: Duration::from_secs(5),
        }
    }
}
