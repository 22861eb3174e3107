//! What every handler shares, and the tenant it works for.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use api_types::auth::TokenSecret;
use api_types::crd::{BatchSandbox, Pool};
use api_types::ids::{PodUid, SandboxUid};
use api_types::names::{EXECD_PORT, headers};
use axum::extract::FromRequestParts;
use http::request::Parts;
use kube::{Api, Client};
use parking_lot::RwLock;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::front::rate::Rates;
use crate::health::{self, Health};
use crate::keys::ApiKeys;
use crate::metrics::Metrics;
use crate::proxy::Backend;
use crate::sandboxes::state::Address;
use crate::space::{Space, Spaces};
use crate::streams::Streams;
use crate::tenants::Tenant;

/// Shared state, with one tenant's view of Kubernetes; a clone is a few references.
#[derive(Clone)]
pub struct App {
    shared: Arc<Shared>,
    space: Arc<Space>,
}

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
    /// What is known of each tenant's namespace.
    pub spaces: Spaces,
    /// How often callers have asked.
    pub rates: Rates,
    /// One permit a create in progress.
    pub creates: Arc<Semaphore>,
    /// Places for what stays open.
    pub streams: Streams,
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
        &self.shared
    }
}

/// A handler gets the view of its caller's tenant, which the check of the key has laid beside the request.
impl FromRequestParts<App> for App {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<App>().unwrap_or(app).clone())
    }
}

impl App {
    /// Builds the state and starts its watches.
    pub fn start(client: Client, mut config: Config) -> Self {
        if config.tenants.is_some() {
            // What lies on a node is nobody's in particular.
            config.allowed_host_paths.clear();
        }
        let stop = CancellationToken::new();
        let metrics = Metrics::default();
        let health = Health::default();
        let own = Space::new(&config.namespace, None, stop.child_token());
        if config.tenants.is_none() {
            own.follow(&client, &metrics, health.sandboxes.clone(), health.pools.clone());
        } else {
            // Each tenant's memory tells for itself whether it is filled: one must not take the others down.
            health.sandboxes.pass();
            health.pools.pass();
        }
        let shared = Arc::new(Shared {
            keys: RwLock::new(Arc::new(config.api_keys.clone())),
            health,
            spaces: Spaces::default(),
            rates: Rates::default(),
            creates: Arc::new(Semaphore::new(config.limits.concurrent_creates)),
            streams: Streams::new(config.limits.streams),
            backend: Backend::new(&config.limits),
            work: TaskTracker::new(),
            tokens: TokenSecret::new(config.token_secret),
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
            metrics,
            client,
            config,
        });
        let app = Self { shared, space: Arc::new(own) };
        app.meet_tenants();
        // Not the state itself: it would keep itself alive.
        tokio::spawn(health::watch_access(Arc::downgrade(&app.shared)));
        app
    }

    /// Begins to follow the namespaces of tenants that are known beforehand.
    pub fn meet_tenants(&self) {
        if let Some(crate::tenants::Tenants::File(file)) = &self.config.tenants {
            let file = file.read().clone();
            for tenant in file.tenants() {
                let _followed = self.of(tenant);
            }
        }
    }

    /// The shared state, to be held weakly.
    pub fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// The same state in the view of a tenant.
    #[must_use]
    pub fn of(&self, tenant: &Arc<Tenant>) -> Self {
        let begin = || {
            let space = Space::new(&tenant.namespace, Some(tenant.clone()), self.stop.child_token());
            let silent = Health::default();
            space.follow(&self.client, &self.metrics, silent.sandboxes, silent.pools);
            space
        };
        Self { shared: self.shared.clone(), space: self.spaces.get(tenant, begin) }
    }

    /// The same state in the view of a space.
    #[must_use]
    pub fn within(&self, space: Arc<Space>) -> Self {
        Self { shared: self.shared.clone(), space }
    }

    /// What is known of the namespace.
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// Whether everybody may do everything.
    pub fn is_open(&self) -> bool {
        self.config.tenants.is_none() && self.keys.read().is_empty()
    }

    /// The tenant, on a server with tenants.
    pub fn tenant(&self) -> Option<&Arc<Tenant>> {
        self.space.tenant.as_ref()
    }

    /// BatchSandboxes of our namespace.
    pub fn sandbox_api(&self) -> Api<BatchSandbox> {
        Api::namespaced(self.client.clone(), &self.space.namespace)
    }

    /// Pools of our namespace.
    pub fn pool_api(&self) -> Api<Pool> {
        Api::namespaced(self.client.clone(), &self.space.namespace)
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
