//! Everything the API has ever shown, in the order of its versions.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use api_types::crd::{BatchSandbox, Pool};
use futures::TryStreamExt as _;
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
    changes: Mutex<BTreeMap<u64, Change>>,
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

    /// How many changes there were.
    pub fn len(&self) -> usize {
        self.changes.lock().len()
    }

    /// Whether there was none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All changes, oldest first; or why some are missing.
    pub fn all(&self) -> Result<Vec<Change>, String> {
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
                history.changes.lock().insert(number, change);
            }
            Ok::<_, kube::Error>(())
        };
        if let Err(error) = read.await {
            *history.broken.lock() = Some(format!("the watch on {} broke: {error}", K::plural(&())));
            return;
        }
    }
}
