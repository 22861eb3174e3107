//! What every request shares.

use std::sync::Arc;

use parking_lot::RwLock;

use crate::env::{Clock, Hook, Ids};
use crate::gc::Jobs;
use crate::kinds::Registry;
use crate::store::{Change, Store};
use crate::streams::PodStreams;
use crate::verbs::list::Pages;

/// The server without its transport.
pub(crate) struct Core {
    pub(crate) store: Store,
    pub(crate) registry: Registry,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn Ids>,
    pub(crate) hook: Arc<dyn Hook>,
    pub(crate) streams: RwLock<Option<Arc<dyn PodStreams>>>,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) pages: Pages,
    /// When old events were last looked for.
    pub(crate) swept: parking_lot::Mutex<Option<jiff::Timestamp>>,
}

impl Core {
    pub(crate) fn new(store: Store, clock: Arc<dyn Clock>, ids: Arc<dyn Ids>, hook: Arc<dyn Hook>) -> Arc<Self> {
        let jobs = Arc::new(Jobs::default());
        let noted = jobs.clone();
        store.observe(move |change: &Change| noted.note(change));
        let core = Arc::new(Self {
            store,
            registry: Registry::new(),
            clock,
            ids,
            hook,
            streams: RwLock::new(None),
            jobs,
            pages: Pages::default(),
            swept: parking_lot::Mutex::new(None),
        });
        crate::crd::load(&core);
        crate::namespaces::seed(&core);
        crate::gc::resume(&core);
        core
    }

    /// The time for timestamps, as Kubernetes writes it.
    pub(crate) fn now(&self) -> String {
        crate::env::rfc3339(self.clock.now())
    }
}
