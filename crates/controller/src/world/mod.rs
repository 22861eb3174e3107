//! What the controller knows: a plain struct fed by events, cheap at each of them.
//!
//! Events come from watches and from the answers to our own writes; the newer resourceVersion
//! wins, so what was written is known before the watch tells it (the assumed state) and a late
//! watch event does not undo it. Every change names the objects to look at again; see
//! [`World::take_touched`].

mod batches;
mod inherited;
mod lists;
mod pod;
mod pools;
mod shelf;
mod sums;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api_types::crd::{BatchSandbox, Pool};
pub use batches::{BatchEntry, BatchSnapshot, ClaimSeen, Refusal, Shortage, TasksSeen, Times};
pub use inherited::Inherited;
pub(crate) use inherited::is_inherited;
use jiff::Timestamp;
use lists::Lists;
pub use lists::Scope;
pub use pod::{Claimant, Exit, Owner, Phase, PodView, Start, Trouble};
pub use pools::{PoolEntry, PoolMemory, PoolSnapshot, Template};
use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};
pub use shelf::{Class, Shelf};
pub use sums::PoolSums;

use crate::guard::{Guard, stands};

/// UID of an object.
pub type Uid = Arc<str>;

/// Namespace and name of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl ObjectName {
    /// Both parts.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl std::fmt::Display for ObjectName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One object to work on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// A Pool.
    Pool(ObjectName),
    /// A BatchSandbox.
    Batch(ObjectName),
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pool(name) => write!(f, "Pool {name}"),
            Self::Batch(name) => write!(f, "BatchSandbox {name}"),
        }
    }
}

/// Kinds that are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Pods.
    Pod,
    /// Pools.
    Pool,
    /// BatchSandboxes.
    Batch,
}

/// resourceVersion as a number; Kubernetes: it grows with every write of a resource.
pub fn version_of(text: Option<&str>) -> u64 {
    text.and_then(|t| t.parse().ok()).unwrap_or(0)
}

/// Everything known.
#[derive(Default)]
pub struct World {
    pods: HashMap<Uid, PodEntry>,
    pools: HashMap<Uid, PoolEntry>,
    pool_names: HashMap<ObjectName, Uid>,
    batches: HashMap<Uid, BatchEntry>,
    batch_names: HashMap<ObjectName, Uid>,
    /// Pods by the UID of the pool that made them.
    shelves: HashMap<Uid, Shelf>,
    /// Pods by the UID of the BatchSandbox that made them.
    batch_pods: HashMap<Uid, BTreeSet<Uid>>,
    /// Who holds a pod: by a durable grant.
    holders: HashMap<Uid, Uid>,
    /// Pods that were granted once and are held no more, with the number of grants that say so.
    stained: HashMap<Uid, usize>,
    /// Pods promised to a BatchSandbox whose grant is not durable yet.
    reserved: HashMap<Uid, Uid>,
    /// Requests by pool, oldest first.
    waiting: HashMap<ObjectName, BTreeMap<(Timestamp, Uid), usize>>,
    /// Pods deleted not long ago: an answer that comes late must not bring them back.
    buried: shelf::Recent,
    /// What objects of older controllers say that they hold.
    inherited: inherited::Index,
    lists: Lists,
    touched: HashSet<Key>,
    /// Whether another controller decides, so that nothing is promised here.
    standing_by: bool,
    /// The time that new observations carry.
    now: Timestamp,
    started: Vec<Start>,
}

struct PodEntry {
    view: PodView,
    class: Option<Class>,
    round: u64,
    dirty: bool,
    /// When it was seen ready first.
    ready_seen: Option<Timestamp>,
}

impl World {
    /// Nothing known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing known yet, of some namespaces only; all of them when none is named.
    pub fn of(namespaces: &[String]) -> Self {
        Self { lists: Lists::of(namespaces), ..Self::default() }
    }

    /// What is told from now on happens at this time.
    pub fn set_time(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// Another controller leads: nothing is promised until [`World::lead`].
    pub fn stand_by(&mut self) {
        self.standing_by = true;
    }

    /// We lead: whoever waits is served.
    pub fn lead(&mut self) {
        self.standing_by = false;
        let pools: Vec<Uid> = self.pools.keys().cloned().collect();
        pools.iter().for_each(|pool| self.match_pool(pool));
    }

    /// A listing of this kind begins: what it does not name will be gone when it ends.
    pub fn begin_list(&mut self, kind: Kind, scope: &Scope) {
        self.lists.begin(kind, scope);
    }

    /// The listing has ended.
    pub fn end_list(&mut self, kind: Kind, scope: &Scope) {
        let round = self.lists.end(kind, scope);
        let inside = |namespace: &str| scope.as_deref().is_none_or(|s| s == namespace);
        match kind {
            Kind::Pod => {
                let old = self.pods.iter().filter(|(_, e)| e.round < round && inside(&e.view.namespace));
                let gone: Vec<Uid> = old.map(|(uid, _)| uid.clone()).collect();
                gone.iter().for_each(|uid| self.remove_pod(uid));
            }
            Kind::Pool => {
                let old = self.pools.iter().filter(|(_, e)| e.round < round && inside(&e.name.namespace));
                let gone: Vec<Uid> = old.map(|(uid, _)| uid.clone()).collect();
                gone.iter().for_each(|uid| self.remove_pool(uid));
            }
            Kind::Batch => {
                let old = self.batches.iter().filter(|(_, e)| e.round < round && inside(&e.name.namespace));
                let gone: Vec<Uid> = old.map(|(uid, _)| uid.clone()).collect();
                gone.iter().for_each(|uid| self.remove_batch(uid));
            }
        }
    }

    /// Whether every kind was listed once; before that nothing may be decided.
    pub fn is_synced(&self) -> bool {
        [Kind::Pod, Kind::Pool, Kind::Batch].iter().all(|kind| self.is_listed(*kind))
    }

    /// Whether a kind was listed everywhere once.
    pub fn is_listed(&self, kind: Kind) -> bool {
        self.lists.is_listed(kind)
    }

    /// How the pods started that became ready since the last call.
    pub fn take_started(&mut self) -> Vec<Start> {
        std::mem::take(&mut self.started)
    }

    /// Every object there is, to look at all of them once.
    pub fn all_keys(&self) -> Vec<Key> {
        let pools = self.pool_names.keys().cloned().map(Key::Pool);
        pools.chain(self.batch_names.keys().cloned().map(Key::Batch)).collect()
    }

    /// The objects to look at again since the last call.
    pub fn take_touched(&mut self) -> Vec<Key> {
        self.touched.drain().collect()
    }

    /// A pod, if it is known.
    pub fn pod(&self, uid: &str) -> Option<&PodView> {
        self.pods.get(uid).map(|e| &e.view)
    }

    /// A Pool by name.
    pub fn pool_named(&self, name: &ObjectName) -> Option<Arc<Pool>> {
        let uid = self.pool_names.get(name)?;
        self.pools.get(uid).map(|e| e.object.clone())
    }

    /// A BatchSandbox by name.
    pub fn batch_named(&self, name: &ObjectName) -> Option<Arc<BatchSandbox>> {
        let uid = self.batch_names.get(name)?;
        self.batches.get(uid).map(|e| e.object.clone())
    }

    /// A pod as it is now. Older news than what is known is passed over.
    pub fn apply_pod(&mut self, view: PodView) {
        if stands(Guard::Buried) && self.buried.contains(&view.uid) {
            return;
        }
        let round = self.lists.round(Kind::Pod, &view.namespace);
        let uid = view.uid.clone();
        let ready_seen = view.is_ready().then_some(self.now);
        match self.pods.get_mut(&uid) {
            Some(entry) => {
                entry.round = round;
                if stands(Guard::NewerWins) && view.version != 0 && view.version < entry.view.version {
                    return;
                }
                // A deletion that was accepted is never taken back.
                let deleting = entry.view.deleting || view.deleting;
                entry.view = PodView { deleting, ..view };
                if let (None, Some(now)) = (entry.ready_seen, ready_seen) {
                    entry.ready_seen = Some(now);
                    self.started.extend(entry.view.start);
                }
            }
            None => {
                if let Some(Owner::Batch(owner)) = &view.owner {
                    self.batch_pods.entry(owner.clone()).or_default().insert(uid.clone());
                }
                // One that was ready before we looked is as old as it says.
                let ready_seen =
                    if self.lists.listing(Kind::Pod, &view.namespace) { view.ready_since } else { ready_seen };
                self.inherited.add_pod(&view);
                self.pods.insert(uid.clone(), PodEntry { view, class: None, round, dirty: false, ready_seen });
            }
        }
        self.refile(&uid);
        self.touch_around(&uid);
    }

    /// The API server accepted the deletion of a pod.
    pub fn assume_deleting(&mut self, uid: &str) {
        if stands(Guard::AssumedDeletion)
            && let Some(entry) = self.pods.get_mut(uid)
            && !entry.view.deleting
        {
            entry.view.deleting = true;
            let uid = entry.view.uid.clone();
            self.refile(&uid);
            self.touch_around(&uid);
        }
    }

    /// The pod is gone.
    pub fn remove_pod(&mut self, uid: &str) {
        self.buried.insert(uid.into());
        let Some(entry) = self.pods.remove(uid) else { return };
        self.inherited.remove_pod(&entry.view);
        if let Some(Owner::Batch(owner)) = &entry.view.owner
            && let Some(pods) = self.batch_pods.get_mut(owner)
        {
            pods.remove(uid);
            if pods.is_empty() {
                self.batch_pods.remove(owner);
            }
        }
        if let (Some(Owner::Pool(owner)), Some(class)) = (&entry.view.owner, entry.class)
            && let Some(shelf) = self.shelves.get_mut(owner)
        {
            shelf.take(class, &entry.view);
            if shelf.is_empty() {
                self.shelves.remove(owner);
            }
        }
        // A pod that was promised and went before the grant was durable: the promise is void.
        if let Some(batch) = self.reserved.remove(uid) {
            self.drop_reservation(&batch, uid);
        }
        self.touch_owner(&entry.view);
        if let Some(batch) = self.holders.get(uid).cloned() {
            if let (Some(holder), Some(trouble)) = (self.batches.get_mut(&batch), &entry.view.ended) {
                holder.epitaphs.insert(entry.view.uid.clone(), trouble.clone());
            }
            self.touch_batch(&batch);
        }
    }

    /// The pod must not be given to anybody any more.
    pub fn soil(&mut self, uid: &str) {
        if stands(Guard::DirtyMark)
            && let Some(entry) = self.pods.get_mut(uid)
            && !entry.dirty
        {
            entry.dirty = true;
            let uid = entry.view.uid.clone();
            self.refile(&uid);
            self.touch_around(&uid);
        }
    }

    /// The pod is about to be deleted: from now on nobody gets it. `false` when somebody has it already.
    pub fn doom(&mut self, uid: &str) -> bool {
        let Some(entry) = self.pods.get_mut(uid) else { return true };
        if entry.class == Some(Class::Held) {
            return false;
        }
        if !entry.dirty && stands(Guard::DoomedFirst) {
            entry.dirty = true;
            let uid = entry.view.uid.clone();
            self.refile(&uid);
        }
        true
    }

    /// Puts a pod where it belongs among its pool's pods, and looks whether somebody waits for it.
    fn refile(&mut self, uid: &Uid) {
        let Some(entry) = self.pods.get(uid) else { return };
        let Some(Owner::Pool(pool)) = entry.view.owner.clone() else { return };
        let class = self.classify(entry);
        let shelf = self.shelves.entry(pool.clone()).or_default();
        let Some(entry) = self.pods.get_mut(uid) else { return };
        if let Some(old) = entry.class {
            shelf.take(old, &entry.view);
        }
        entry.class = Some(class);
        shelf.put(class, &entry.view);
        if class == Class::Ready {
            self.match_pool(&pool);
        }
    }

    fn classify(&self, entry: &PodEntry) -> Class {
        let view = &entry.view;
        if view.deleting {
            return Class::Terminating;
        }
        let holder = self.holder_of(view);
        let foreign_mark = view.claimed_by.as_deref().is_some_and(|by| Some(by) != holder.map(|h| &**h));
        if entry.dirty || (foreign_mark && stands(Guard::ForeignMark)) {
            return Class::Spent;
        }
        if holder.is_some() {
            return Class::Held;
        }
        if self.inherited.is_unsure(view) {
            return Class::Held;
        }
        let stained = stands(Guard::Stained) && self.stained.contains_key(&view.uid);
        let evicted = stands(Guard::Evicted) && view.evict;
        if stained || evicted || view.is_over() || view.node_lost || view.recycled {
            return Class::Spent;
        }
        match (view.is_ready(), view.restarts) {
            (true, restarts) if restarts == 0 || !stands(Guard::Restarted) => Class::Ready,
            // Something ended in it before it was given to anybody; what is left is not as new.
            (true, _) => Class::Spent,
            (false, _) => Class::Starting,
        }
    }

    /// Who has a pod: by a durable grant, by what an older controller left, or by a promise.
    fn holder_of(&self, view: &PodView) -> Option<&Uid> {
        let uid = &view.uid;
        self.holders.get(uid).or_else(|| self.inherited.holder(view)).or_else(|| self.reserved.get(uid))
    }

    /// Whether anybody had the pod once.
    fn was_used(&self, uid: &Uid) -> bool {
        let entry = self.pods.get(uid);
        self.stained.contains_key(uid)
            || entry.is_some_and(|e| e.dirty || e.view.claimed_by.is_some() || e.view.recycled)
    }

    fn touch_owner(&mut self, view: &PodView) {
        let key = match &view.owner {
            Some(Owner::Pool(uid)) => self.pools.get(uid).map(|e| Key::Pool(e.name.clone())),
            Some(Owner::Batch(uid)) => self.batches.get(uid).map(|e| Key::Batch(e.name.clone())),
            None => None,
        };
        self.touched.extend(key);
    }

    fn touch_around(&mut self, uid: &Uid) {
        let Some(view) = self.pods.get(uid).map(|e| e.view.clone()) else { return };
        self.touch_owner(&view);
        let heir = self.inherited.holder(&view).cloned();
        for holder in [self.holders.get(uid).cloned(), self.reserved.get(uid).cloned(), heir].into_iter().flatten() {
            self.touch_batch(&holder);
        }
    }

    fn touch_batch(&mut self, uid: &Uid) {
        self.touched.extend(self.batches.get(uid).map(|e| Key::Batch(e.name.clone())));
    }
}

#[cfg(test)]
mod tests;
