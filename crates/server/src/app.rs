//! What every handler shares.

use std::collections::BTreeMap;
use std::sync::Arc;

use api_types::auth::TokenSecret;
use api_types::crd::{BatchSandbox, Pool};
use api_types::ids::{PodUid, SandboxUid};
use api_types::names::{EXECD_PORT, headers, labels};
use kube::{Api, Client};
use parking_lot::RwLock;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::health::{self, Health};
use crate::keys::ApiKeys;
use crate::metrics::Metrics;
use crate::proxy::Backend;
use crate::sandboxes::state::Address;
use crate::store::{Store, Told};

/// Shared state; a clone is a reference.
#[derive(Clone)]
pub struct App(Arc<Shared>);

/// The shared state itself.
pub struct Shared {
    /// Configuration.
    pub config: Config,
    /// Kubernetes.
    pub client: Client,
    /// Keys that open the API; they may be changed while it runs.
    pub keys: RwLock<Arc<ApiKeys>>,
    /// What is counted and measured.
    pub metrics: Metrics,
    /// Whether requests can be served, and what is missing when not.
    pub health: Health,
    /// Sandboxes of this API, by one watch.
    pub sandboxes: Store<BatchSandbox>,
    /// Pools, by one watch.
    pub pools: Store<Pool>,
    /// One permit a create in progress.
    pub creates: Arc<Semaphore>,
    /// Connections to sandboxes.
    pub backend: Backend,
    /// Creates and their undoing, which a shutdown waits for.
    pub work: TaskTracker,
    /// Ends what the server started by itself.
    pub stop: CancellationToken,
    tokens: TokenSecret,
    _stop_on_drop: DropGuard,
}

impl std::ops::Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl App {
    /// Builds the state and starts its two watches.
    pub fn start(client: Client, config: Config) -> Self {
        let stop = CancellationToken::new();
        let metrics = Metrics::default();
        let app = Self(Arc::new(Shared {
            keys: RwLock::new(Arc::new(config.api_keys.clone())),
            health: Health::default(),
            sandboxes: Store::default(),
            pools: Store::default(),
            creates: Arc::new(Semaphore::new(config.limits.concurrent_creates)),
            backend: Backend::new(&config.limits),
            work: TaskTracker::new(),
            tokens: TokenSecret::new(config.token_secret),
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
            metrics,
            client,
            config,
        }));
        let ours = kube::runtime::watcher::Config::default().labels(labels::SANDBOX_ID);
        let told = Told { namespace: app.config.namespace.clone(), metrics: app.metrics.clone() };
        app.sandboxes.run(app.sandbox_api(), ours, told.clone(), app.health.sandboxes.clone(), app.stop.clone());
        let all = kube::runtime::watcher::Config::default();
        app.pools.run(app.pool_api(), all, told, app.health.pools.clone(), app.stop.clone());
        // Not the state itself: it would keep itself alive.
        tokio::spawn(health::watch_access(Arc::downgrade(&app.0)));
        app
    }

    /// The shared state, to be held weakly.
    pub fn shared(&self) -> Arc<Shared> {
        self.0.clone()
    }

    /// BatchSandboxes of our namespace.
    pub fn sandbox_api(&self) -> Api<BatchSandbox> {
        Api::namespaced(self.client.clone(), &self.config.namespace)
    }

    /// Pools of our namespace.
    pub fn pool_api(&self) -> Api<Pool> {
        Api::namespaced(self.client.clone(), &self.config.namespace)
    }

    /// The headers that open a port of a sandbox to its owner: execd's token for execd's port, and, at the proxy, the
    /// port's own token, so that callers need no API key there.
    pub fn access_headers(
        &self,
        sandbox_uid: &str,
        address: &Address,
        port: u16,
        proxied: bool,
    ) -> BTreeMap<String, String> {
        let sandbox = SandboxUid::new(sandbox_uid);
        let mut found = BTreeMap::new();
        if let Some(pod) = address.pod_uid.as_deref().filter(|_| port == EXECD_PORT) {
            let token = self.tokens.execd_token(&sandbox, &PodUid::new(pod));
            found.insert(headers::EXECD_ACCESS_TOKEN.to_owned(), token);
        }
        if proxied {
            found.insert(headers::SECURE_ACCESS.to_owned(), self.tokens.port_token(&sandbox, port));
        }
        found
    }
}
