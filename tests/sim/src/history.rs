//! Everything the API has ever shown, in the order of its versions.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use api_types::crd::{BatchSandbox, Pool};
use futures::TryStreamExt as _;
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{WatchEvent, WatchParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use crate::surroundings::SimClock;

/// One object as it is now.
#[derive(Debug, Clone)]
pub enum Object {
    /// A pod.
    Pod(Box<Pod>),
    /// A Pool.
    Pool(Box<Pool>),
    /// A BatchSandbox.
    Batch(Box<BatchSandbox>),
}

/// One change.
#[derive(Debug, Clone)]
pub struct Change {
    /// Version of the API.
    pub version: u64,
    /// When, since the begin of the story.
    pub at: Duration,
    /// UID of the object.
    pub uid: String,
    /// The object, or its last state when it is gone.
    pub object: Object,
    /// Whether it is gone.
    pub gone: bool,
}

/// The changes so far.
#[derive(Default)]
pub struct History {
    changes: Mutex<BTreeMap<u64, Arc<Change>>>,
    broken: Mutex<Option<String>>,
}

impl History {
    /// Follows everything from now on.
    pub fn follow(client: &Client, clock: &Arc<SimClock>) -> Arc<Self> {
        let history = Arc::new(Self::default());
        tokio::spawn(watch(history.clone(), client.clone(), clock.clone(), |o| Object::Pod(Box::new(o))));
        tokio::spawn(watch(history.clone(), client.clone(), clock.clone(), |o| Object::Pool(Box::new(o))));
        tokio::spawn(watch(history.clone(), client.clone(), clock.clone(), |o| Object::Batch(Box::new(o))));
        history
    }

    /// Version of the last change; 0 before the first.
    pub fn version(&self) -> u64 {
        self.changes.lock().last_key_value().map_or(0, |(version, _)| *version)
    }

    /// The first change after a version.
    pub fn after(&self, version: u64) -> Option<Arc<Change>> {
        self.changes.lock().range(version + 1..).next().map(|(_, change)| change.clone())
    }

    /// The last change.
    pub fn last(&self) -> Option<Arc<Change>> {
        self.changes.lock().last_key_value().map(|(_, change)| change.clone())
    }

    /// When the last of what is to end by itself does so.
    pub fn last_expiry(&self) -> Option<Timestamp> {
        let mut expiries = BTreeMap::new();
        for change in self.changes.lock().values() {
            if let Object::Batch(batch) = &change.object {
                let expiry = batch.spec.expire_time.as_ref().filter(|_| !change.gone).map(|at| at.0);
                expiries.insert(change.uid.clone(), expiry);
            }
        }
        expiries.into_values().flatten().max()
    }

    /// All changes, oldest first; or why some are missing.
    pub fn all(&self) -> Result<Vec<Arc<Change>>, String> {
        match &*self.broken.lock() {
            Some(why) => Err(why.clone()),
            None => Ok(self.changes.lock().values().cloned().collect()),
        }
    }
}

async fn watch<K>(history: Arc<History>, client: Client, clock: Arc<SimClock>, wrap: fn(K) -> Object)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let api: Api<K> = Api::namespaced(client, "default");
    let mut version = "0".to_owned();
    loop {
        let read = async {
            let mut events = std::pin::pin!(api.watch(&WatchParams::default().timeout(290), &version).await?);
            while let Some(event) = events.try_next().await? {
                let (object, gone) = match event {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
                    WatchEvent::Deleted(object) => (object, true),
                    WatchEvent::Bookmark(mark) => {
                        version = mark.metadata.resource_version;
                        continue;
                    }
                    WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
                };
                version = object.resource_version().unwrap_or_default();
                let number = version.parse().unwrap_or(0);
                let uid = object.uid().unwrap_or_default();
                let change = Change { version: number, at: clock.elapsed(), uid, object: wrap(object), gone };
                history.changes.lock().insert(number, Arc::new(change));
            }
            Ok::<_, kube::Error>(())
        };
        if let Err(error) = read.await {
            *history.broken.lock() = Some(format!("the watch on {} broke: {error}", K::plural(&())));
            return;
        }
    }
}
