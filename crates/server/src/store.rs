//! The server's memory of one kind: fed by one watch, read without I/O, and waited on by name.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as start_watcher};
use kube::{Api, Resource, ResourceExt as _};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use telemetry::Check;
use telemetry::kubernetes::watch_trouble;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::{Kind, Metrics};

/// What a watch needs in order to tell of its troubles.
#[derive(Clone)]
pub struct Told {
    /// Namespace that is watched.
    pub namespace: String,
    /// Where breaks are counted.
    pub metrics: Metrics,
}

/// What a waiter knows of its object.
#[derive(Debug, Clone)]
pub enum Seen<K> {
    /// The watch has not brought it yet.
    Never,
    /// How it is now.
    Present(Arc<K>),
    /// It is deleted.
    Gone,
}

/// Newest first, as lists are answered.
type Order = (Reverse<Timestamp>, String);

struct Inner<K> {
    by_name: HashMap<String, Arc<K>>,
    order: BTreeMap<Order, Arc<K>>,
    waiters: HashMap<String, watch::Sender<Seen<K>>>,
    /// Names met since a relist began.
    relisted: Option<HashSet<String>>,
}

/// Memory of one kind in one namespace.
pub struct Store<K> {
    inner: Arc<Mutex<Inner<K>>>,
    synced: Arc<watch::Sender<bool>>,
}

impl<K> Clone for Store<K> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), synced: self.synced.clone() }
    }
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        let inner = Inner { by_name: HashMap::new(), order: BTreeMap::new(), waiters: HashMap::new(), relisted: None };
        Self { inner: Arc::new(Mutex::new(inner)), synced: Arc::new(watch::Sender::new(false)) }
    }
}

/// A place in the line for news of one name; leaving it is dropping it.
pub struct Waiter<K> {
    store: Store<K>,
    name: String,
    news: watch::Receiver<Seen<K>>,
}

impl<K> Waiter<K> {
    /// What is known now; [`Waiter::changed`] wakes for what comes after.
    pub fn current(&mut self) -> Seen<K>
    where
        Seen<K>: Clone,
    {
        self.news.borrow_and_update().clone()
    }

    /// Waits for news.
    pub async fn changed(&mut self) {
        // The sender goes only after it has said that the object is gone.
        let _ = self.news.changed().await;
    }
}

impl<K> Drop for Waiter<K> {
    fn drop(&mut self) {
        let mut inner = self.store.inner.lock();
        if inner
            .waiters
            .get(&self.name)
            .is_some_and(|s| s.receiver_count() <= 1 && self.news.same_channel(&s.subscribe()))
        {
            inner.waiters.remove(&self.name);
        }
    }
}

impl<K> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
{
    /// Feeds the store from a watch until `stop`.
    pub fn run(&self, api: Api<K>, config: watcher::Config, told: Told, check: Check, stop: CancellationToken)
    where
        K: DeserializeOwned,
    {
        let store = self.clone();
        tokio::spawn(async move {
            let plural = K::plural(&());
            let mut events = std::pin::pin!(start_watcher(api, config).default_backoff());
            loop {
                let event = tokio::select! {
                    event = events.next() => event,
                    () = stop.cancelled() => return,
                };
                match event {
                    Some(Ok(event)) => {
                        let complete = matches!(event, Event::InitDone);
                        store.apply(event);
                        if complete {
                            check.pass();
                        }
                    }
                    Some(Err(error)) => {
                        let trouble = watch_trouble(&error, &plural, &K::group(&()), Some(&told.namespace));
                        tracing::warn!(kind = %K::kind(&()), error = trouble.message, "watch broke; it is tried again");
                        told.metrics.watch_errors.get_or_create(&Kind { kind: K::kind(&()).into_owned() }).inc();
                        // What was read before still serves while the API server is away for a while.
                        if trouble.lasting || !*store.synced.borrow() {
                            check.fail(trouble.message);
                        }
                    }
                    None => return,
                }
            }
        });
    }

    /// Takes one event of the watch.
    pub fn apply(&self, event: Event<K>) {
        let mut inner = self.inner.lock();
        match event {
            Event::Init => inner.relisted = Some(HashSet::new()),
            Event::InitApply(object) => {
                if let Some(met) = &mut inner.relisted {
                    met.insert(object.name_any());
                }
                inner.put(object);
            }
            Event::InitDone => {
                if let Some(met) = inner.relisted.take() {
                    let lost: Vec<_> = inner.by_name.keys().filter(|name| !met.contains(*name)).cloned().collect();
                    lost.iter().for_each(|name| inner.remove(name, None));
                }
                drop(inner);
                self.synced.send_replace(true);
            }
            Event::Apply(object) => inner.put(object),
            Event::Delete(object) => inner.remove(&object.name_any(), object.meta().uid.as_deref()),
        }
    }

    /// Takes what a write of this server answered, so that its own reads see it before the watch does.
    pub fn observe(&self, object: K) {
        let mut inner = self.inner.lock();
        if let Some(met) = &mut inner.relisted {
            met.insert(object.name_any());
        }
        inner.put(object);
    }

    /// Takes that the object is gone.
    pub fn observe_gone(&self, name: &str, uid: Option<&str>) {
        self.inner.lock().remove(name, uid);
    }

    /// The object of a name.
    pub fn get(&self, name: &str) -> Option<Arc<K>> {
        self.inner.lock().by_name.get(name).cloned()
    }

    /// A page of all objects, newest first, and how many there are. Costs the page and what lies before it.
    pub fn page(&self, skip: usize, take: usize) -> (Vec<Arc<K>>, usize) {
        let inner = self.inner.lock();
        (inner.order.values().skip(skip).take(take).cloned().collect(), inner.order.len())
    }

    /// Every object, newest first.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.inner.lock().order.values().cloned().collect()
    }

    /// Lines up for news of a name.
    pub fn wait_for(&self, name: &str) -> Waiter<K> {
        let mut inner = self.inner.lock();
        let known = inner.by_name.get(name).cloned().map_or(Seen::Never, Seen::Present);
        let sender = inner.waiters.entry(name.to_owned()).or_insert_with(|| watch::Sender::new(known));
        let mut news = sender.subscribe();
        news.mark_changed();
        Waiter { store: self.clone(), name: name.to_owned(), news }
    }

    /// Waits until the first list is in; false when the deadline came first.
    pub async fn synced(&self, deadline: Duration) -> bool {
        let mut synced = self.synced.subscribe();
        tokio::time::timeout(deadline, synced.wait_for(|done| *done)).await.is_ok_and(|r| r.is_ok())
    }
}

impl<K: Resource<DynamicType = ()> + Clone> Inner<K> {
    fn put(&mut self, mut object: K) {
        object.meta_mut().managed_fields = None;
        let name = object.name_any();
        if let Some(known) = self.by_name.get(&name) {
            if is_older(&object, known.as_ref()) {
                return;
            }
            let order = order_of(known.as_ref());
            self.order.remove(&order);
        }
        let object = Arc::new(object);
        self.order.insert(order_of(object.as_ref()), object.clone());
        if let Some(waiter) = self.waiters.get(&name) {
            waiter.send_replace(Seen::Present(object.clone()));
        }
        self.by_name.insert(name, object);
    }

    fn remove(&mut self, name: &str, uid: Option<&str>) {
        let Some(known) = self.by_name.get(name) else {
            return;
        };
        if uid.is_some() && known.meta().uid.as_deref() != uid {
            return;
        }
        let order = order_of(known.as_ref());
        self.order.remove(&order);
        self.by_name.remove(name);
        // Whoever lines up for the name after this waits for another object.
        if let Some(waiter) = self.waiters.remove(name) {
            waiter.send_replace(Seen::Gone);
        }
    }
}

fn order_of<K: Resource<DynamicType = ()>>(object: &K) -> Order {
    let created = object.meta().creation_timestamp.as_ref().map_or(Timestamp::MIN, |t| t.0);
    (Reverse(created), object.name_any())
}

/// Whether an object was overtaken. Kubernetes: resource versions of one kind are comparable as
/// decimal numbers; where one is none, the later message wins.
fn is_older<K: Resource>(new: &K, known: &K) -> bool {
    let version = |object: &K| object.meta().resource_version.as_deref().and_then(|v| v.parse::<u128>().ok());
    match (version(new), version(known)) {
        (Some(new), Some(known)) => new < known,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn object(name: &str, version: &str, created: i64) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.name = Some(name.to_owned());
        object.metadata.uid = Some(format!("uid-{name}"));
        object.metadata.resource_version = Some(version.to_owned());
        object.metadata.creation_timestamp = Timestamp::from_second(created).ok().map(Time);
        object
    }

    fn names(objects: &[Arc<ConfigMap>]) -> Vec<String> {
        objects.iter().map(|o| o.name_any()).collect()
    }

    #[test]
    fn pages_are_newest_first_and_follow_events() {
        let store = Store::default();
        for (i, name) in ["a", "b", "c"].into_iter().enumerate() {
            store.apply(Event::Apply(object(name, "5", 100 + i as i64)));
        }
        let (page, total) = store.page(1, 1);
        assert_eq!((names(&page), total), (vec!["b".to_owned()], 3));
        store.apply(Event::Delete(object("b", "6", 101)));
        assert_eq!(names(&store.all()), ["c", "a"]);
    }

    #[test]
    fn an_overtaken_version_changes_nothing_and_a_namesake_is_not_removed() {
        let store = Store::default();
        store.observe(object("a", "10", 1));
        store.apply(Event::Apply(object("a", "9", 1)));
        assert_eq!(store.get("a").and_then(|o| o.metadata.resource_version.clone()).as_deref(), Some("10"));
        store.observe_gone("a", Some("another"));
        assert!(store.get("a").is_some());
    }

    #[test]
    fn a_relist_forgets_what_it_does_not_bring() {
        let store = Store::default();
        store.apply(Event::Apply(object("old", "1", 1)));
        store.apply(Event::Init);
        store.apply(Event::InitApply(object("new", "2", 2)));
        store.observe(object("mine", "3", 3));
        store.apply(Event::InitDone);
        assert_eq!(names(&store.all()), ["mine", "new"]);
    }

    #[tokio::test]
    async fn a_waiter_wakes_for_its_name_alone_and_leaves_no_trace() {
        let store = Store::default();
        let mut waiter = store.wait_for("a");
        assert!(matches!(waiter.current(), Seen::Never));
        store.apply(Event::Apply(object("b", "1", 1)));
        store.apply(Event::Apply(object("a", "2", 1)));
        waiter.changed().await;
        assert!(matches!(waiter.current(), Seen::Present(_)));
        store.apply(Event::Delete(object("a", "3", 1)));
        waiter.changed().await;
        assert!(matches!(waiter.current(), Seen::Gone));
        let mut next = store.wait_for("a");
        drop(waiter);
        store.apply(Event::Apply(object("a", "4", 2)));
        next.changed().await;
        assert!(matches!(next.current(), Seen::Present(_)));
        drop(next);
        assert!(store.inner.lock().waiters.is_empty());
    }
}
