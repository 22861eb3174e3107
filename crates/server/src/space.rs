//! One namespace as one tenant, or the only one, sees it: two memories and what is being written.

use std::collections::HashMap;
use std::sync::Arc;

use api_types::crd::{BatchSandbox, Pool};
use api_types::names::labels;
use kube::runtime::watcher;
use kube::{Api, Client};
use parking_lot::Mutex;
use telemetry::Check;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::metrics::Metrics;
use crate::store::{Store, Told};
use crate::tenants::Tenant;
use crate::tenants::quota::Reserved;

/// Most tenants that are followed at once; beyond it the one that was silent for longest is forgotten until it asks.
const SPACES: usize = 1000;

/// A namespace.
pub struct Space {
    /// Its name.
    pub namespace: String,
    /// The tenant, on a server with tenants.
    pub tenant: Option<Arc<Tenant>>,
    /// Sandboxes of this API, by one watch.
    pub sandboxes: Store<BatchSandbox>,
    /// Pools, by one watch.
    pub pools: Store<Pool>,
    /// What is being written, for the quota.
    pub reserved: Reserved,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl Space {
    /// A namespace that is not followed yet.
    pub fn new(namespace: &str, tenant: Option<Arc<Tenant>>, stop: CancellationToken) -> Self {
        Self {
            namespace: namespace.to_owned(),
            tenant,
            sandboxes: Store::default(),
            pools: Store::default(),
            reserved: Reserved::default(),
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
        }
    }

    /// Follows it until it is forgotten.
    pub fn follow(&self, client: &Client, metrics: &Metrics, sandboxes: Check, pools: Check) {
        let told = Told { namespace: self.namespace.clone(), metrics: metrics.clone() };
        let ours = match &self.tenant {
            Some(tenant) => format!("{},{}={}", labels::SANDBOX_ID, labels::TENANT, tenant.name),
            None => labels::SANDBOX_ID.to_owned(),
        };
        let ours = watcher::Config::default().labels(&ours);
        let api = Api::namespaced(client.clone(), &self.namespace);
        self.sandboxes.run(api, ours, told.clone(), sandboxes, self.stop.clone());
        let api = Api::namespaced(client.clone(), &self.namespace);
        self.pools.run(api, watcher::Config::default(), told, pools, self.stop.clone());
    }
}

/// Every tenant's.
#[derive(Default)]
pub struct Spaces(Mutex<HashMap<String, (Instant, Arc<Space>)>>);

impl Spaces {
    /// A tenant's; one that is not there, or in another namespace or with another quota by now, is begun.
    pub fn get(&self, tenant: &Arc<Tenant>, begin: impl FnOnce() -> Space) -> Arc<Space> {
        let now = Instant::now();
        let mut spaces = self.0.lock();
        let key = format!("{}/{}", tenant.namespace, tenant.name);
        if let Some((used, space)) = spaces.get_mut(&key) {
            *used = now;
            if space.tenant.as_ref() == Some(tenant) {
                return space.clone();
            }
        }
        if spaces.len() >= SPACES && !spaces.contains_key(&key) {
            let oldest = spaces.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| spaces.remove(&oldest));
        }
        let space = Arc::new(begin());
        spaces.insert(key, (now, space.clone()));
        space
    }

    /// The one that knows a sandbox.
    pub fn with(&self, id: &str) -> Option<Arc<Space>> {
        self.0.lock().values().find(|(_, space)| space.sandboxes.get(id).is_some()).map(|(_, space)| space.clone())
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Space>> {
        self.0.lock().values().map(|(_, space)| space.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> Arc<Tenant> {
        let (name, namespace) = (name.to_owned(), "n".to_owned());
        Arc::new(Tenant { name, namespace, quota: Default::default(), rate: None })
    }

    #[test]
    fn a_tenants_space_is_begun_once_and_the_silent_ones_are_forgotten() {
        let spaces = Spaces::default();
        let get = |tenant: &Arc<Tenant>| {
            spaces.get(tenant, || Space::new(&tenant.namespace, Some(tenant.clone()), CancellationToken::new()))
        };
        let first = get(&tenant("a"));
        assert!(Arc::ptr_eq(&first, &get(&tenant("a"))));
        for i in 0..SPACES {
            get(&tenant(&format!("t{i}")));
        }
        assert_eq!(spaces.all().len(), SPACES);
        assert!(!Arc::ptr_eq(&first, &get(&tenant("a"))));
    }
}
