//! BatchSandboxes: what they hold, what they wait for, and what their daemons said.

use std::collections::BTreeSet;
use std::sync::Arc;

use api_types::crd::{BatchSandbox, Grant};
use api_types::execd::EntrypointStatus;
use api_types::tasks::Task;
use jiff::Timestamp;
use kube::ResourceExt as _;
use rustc_hash::FxHashMap as HashMap;
use tokio::time::Instant;

use super::{Class, Inherited, Key, Kind, ObjectName, PodView, Trouble, Uid, World, version_of};
use crate::guard::{Guard, stands};
use crate::planner::batch;
use crate::planner::grants::{self, Request};
use crate::planner::pool::Capacity;

/// How a claim stands.
#[derive(Debug, Clone, PartialEq)]
pub enum ClaimSeen {
    /// Under way.
    InFlight,
    /// The pod knows its owner.
    Accepted(Option<EntrypointStatus>),
    /// The pod will not have this owner, or did not answer in time.
    Refused(Trouble),
}

/// What a task-executor said last.
#[derive(Debug, Clone, PartialEq)]
pub enum TasksSeen {
    /// Its tasks.
    Listed(Vec<Task>),
    /// It does not answer.
    Silent(String),
}

/// A BatchSandbox.
pub struct BatchEntry {
    /// Namespace and name.
    pub name: ObjectName,
    /// The object.
    pub object: Arc<BatchSandbox>,
    pub(super) version: u64,
    pub(super) round: u64,
    /// Pods promised to it whose grant is not durable yet.
    pub(super) reserved: Vec<Uid>,
    queued: Option<(ObjectName, Timestamp)>,
    claims: HashMap<Uid, (i64, ClaimSeen)>,
    /// When each claim was answered.
    answered: HashMap<Uid, Timestamp>,
    entrypoints: HashMap<Uid, EntrypointStatus>,
    tasks: HashMap<Uid, TasksSeen>,
    seen: Timestamp,
    refusal: Option<Refusal>,
    /// What pods that are gone said last of why they ended.
    pub(super) epitaphs: HashMap<Uid, Trouble>,
}

/// A pod of its own that the API server refused to create.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// Why.
    pub trouble: Trouble,
    /// Refusals in a row.
    pub times: u32,
    /// When to try again.
    pub after: Instant,
}

/// When things were seen, as exactly as we know.
#[derive(Debug, Clone, Default)]
pub struct Times {
    /// The BatchSandbox.
    pub seen: Option<Timestamp>,
    /// Pods, ready first.
    pub ready: HashMap<Uid, Timestamp>,
    /// Answers to claims.
    pub answered: HashMap<Uid, Timestamp>,
}

impl BatchEntry {
    /// The grants.
    pub fn grants(&self) -> &[Grant] {
        self.object.status.as_ref().map_or(&[], |s| &s.grants)
    }

    /// Pods it holds or was promised.
    pub fn held(&self) -> usize {
        self.grants().iter().filter(|g| g.state.holds()).count() + self.reserved.len()
    }
}

/// Why a BatchSandbox gets no pods now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    /// No pool has the name.
    NoPool,
    /// The pool is being deleted.
    PoolTerminating,
    /// More is wanted than the pool may ever have.
    NeverFits {
        /// The pool's size.
        pool_max: usize,
    },
    /// The pool is as large as it may be, and others hold its pods.
    AtCapacity {
        /// The pool's size.
        pool_max: usize,
    },
    /// Pods are on their way.
    Starting,
}

/// What a look at a BatchSandbox sees.
pub struct BatchSnapshot {
    /// The time of day.
    pub now: Timestamp,
    /// The time that nobody sets, for pauses.
    pub steady: Instant,
    /// The object.
    pub batch: Arc<BatchSandbox>,
    /// Its UID.
    pub uid: Uid,
    /// Its pods: granted, promised, or made by it.
    pub pods: HashMap<Uid, PodView>,
    /// Pods promised to it, in the order of the promise.
    pub reserved: Vec<Uid>,
    /// Pods it made by itself.
    pub own: Vec<Uid>,
    /// Why it gets no pods, if it wants some and has no promise.
    pub shortage: Option<Shortage>,
    /// Why the pool's pods do not start, if they do not.
    pub pool_trouble: Option<Trouble>,
    /// Claims, by pod, with the epoch they were made in.
    pub claims: HashMap<Uid, (i64, ClaimSeen)>,
    /// Entrypoints, by pod.
    pub entrypoints: HashMap<Uid, EntrypointStatus>,
    /// Tasks, by pod.
    pub tasks: HashMap<Uid, TasksSeen>,
    /// What an older controller gave it, if that is not in its grants yet.
    pub inherited: Option<Result<Vec<Inherited>, String>>,
    /// Why its own pods cannot be created, if they cannot.
    pub refusal: Option<Refusal>,
    /// What granted pods that are gone said last of why they ended.
    pub epitaphs: HashMap<Uid, Trouble>,
    /// When things were seen.
    pub times: Times,
}

impl World {
    /// A BatchSandbox as it is now.
    pub fn apply_batch(&mut self, batch: BatchSandbox) {
        let Some(uid) = batch.uid().map(Uid::from) else { return };
        let name = ObjectName::new(&batch.namespace().unwrap_or_default(), &batch.name_any());
        let version = version_of(batch.resource_version().as_deref());
        let round = self.lists.round(Kind::Batch, &name.namespace);
        if let Some(old) = self.batch_names.get(&name).filter(|old| **old != uid).cloned() {
            self.remove_batch(&old);
        }
        if let Some(entry) = self.batches.get_mut(&uid) {
            entry.round = round;
            if stands(Guard::NewerWins) && version != 0 && version < entry.version {
                return;
            }
        }
        let created = batch.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0);
        // News is as old as it is; what a listing names is as old as it says.
        let seen = if self.lists.listing(Kind::Batch, &name.namespace) { created } else { self.now };
        let old_grants = self.batches.get(&uid).map(|e| e.object.clone());
        let entry = self.batches.entry(uid.clone()).or_insert_with(|| BatchEntry {
            name: name.clone(),
            object: Arc::new(batch.clone()),
            version,
            round,
            reserved: Vec::new(),
            queued: None,
            claims: HashMap::default(),
            answered: HashMap::default(),
            entrypoints: HashMap::default(),
            tasks: HashMap::default(),
            seen,
            refusal: None,
            epitaphs: HashMap::default(),
        });
        if entry.object.metadata.generation != batch.metadata.generation {
            // A new spec deserves a new try.
            entry.refusal = None;
        }
        entry.object = Arc::new(batch);
        entry.version = version;
        let object = entry.object.clone();
        let granted: BTreeSet<&str> =
            object.status.iter().flat_map(|s| &s.grants).map(|g| g.pod_uid.as_str()).collect();
        entry.claims.retain(|pod, _| granted.contains(&**pod));
        entry.epitaphs.retain(|pod, _| granted.contains(&**pod));
        entry.answered.retain(|pod, _| granted.contains(&**pod));
        entry.entrypoints.retain(|pod, _| granted.contains(&**pod));
        entry.tasks.retain(|pod, _| granted.contains(&**pod));
        // A promise that became a grant is a promise no more.
        let kept: Vec<Uid> = entry.reserved.drain(..).filter(|pod| !granted.contains(&**pod)).collect();
        entry.reserved = kept;
        for pod in &granted {
            if self.reserved.get(*pod) == Some(&uid) {
                self.reserved.remove(*pod);
            }
        }
        self.batch_names.insert(name.clone(), uid.clone());
        self.index_grants(&uid, old_grants.as_deref(), &object);
        self.index_record(&uid, Some(&object));
        self.recount(&uid);
        self.touched.insert(Key::Batch(name));
    }

    /// The BatchSandbox is gone; pods it held and that are still there are used up.
    pub fn remove_batch(&mut self, uid: &str) {
        let Some(entry) = self.batches.remove(uid) else { return };
        let uid: Uid = uid.into();
        if self.batch_names.get(&entry.name) == Some(&uid) {
            self.batch_names.remove(&entry.name);
        }
        let queued = entry.queued.clone();
        if let Some((pool, created)) = &queued {
            self.unqueue(pool, *created, &uid);
        }
        for pod in &entry.reserved {
            self.reserved.remove(pod);
            self.refile(pod);
            self.touch_around(pod);
        }
        for grant in entry.grants() {
            self.soil(&grant.pod_uid);
        }
        self.index_grants(&uid, Some(&entry.object), &BatchSandbox::default_like(&entry.object));
        self.index_record(&uid, None);
        self.touched.insert(Key::Batch(entry.name));
        if let Some((pool, _)) = queued {
            self.match_named(&pool);
        }
    }

    /// Keeps who holds which pod, and which pods were held once.
    fn index_grants(&mut self, uid: &Uid, old: Option<&BatchSandbox>, new: &BatchSandbox) {
        let (old, new) = (old.map(claims_of).unwrap_or_default(), claims_of(new));
        if old == new {
            return;
        }
        let mut changed = BTreeSet::new();
        for (pod, holds) in &old {
            if *holds {
                if self.holders.get(pod) == Some(uid) {
                    self.holders.remove(pod);
                }
            } else if let Some(n) = self.stained.get_mut(pod) {
                *n -= 1;
                if *n == 0 {
                    self.stained.remove(pod);
                }
            }
            changed.insert(pod.clone());
        }
        for (pod, holds) in &new {
            if *holds {
                self.holders.entry(pod.clone()).or_insert_with(|| uid.clone());
                self.void_promise(pod, uid);
            } else {
                *self.stained.entry(pod.clone()).or_default() += 1;
            }
            changed.insert(pod.clone());
        }
        for pod in &changed {
            // A grant that left the list without its pod being gone still means that the pod was used.
            if !new.iter().any(|(of_new, _)| of_new == pod) {
                self.soil(pod);
            }
            self.refile(pod);
            let owner = self.pods.get(pod).map(|e| e.view.clone());
            owner.iter().for_each(|view| self.touch_owner(view));
        }
    }

    /// A promise of a pod that somebody else holds by a durable grant.
    pub(super) fn void_promise(&mut self, pod: &Uid, holder: &Uid) {
        if let Some(other) = self.reserved.get(pod).filter(|other| *other != holder).cloned() {
            self.reserved.remove(pod);
            self.drop_reservation(&other, pod);
        }
    }

    /// Counts anew what a BatchSandbox waits for, and looks whether somebody can be served.
    pub(super) fn recount(&mut self, uid: &Uid) {
        if let Some(pool) = self.requeue(uid) {
            self.match_named(&pool);
        }
    }

    /// Counts anew what a BatchSandbox waits for; the pool whose queue changed, if one did.
    pub(super) fn requeue(&mut self, uid: &Uid) -> Option<ObjectName> {
        let entry = self.batches.get(uid)?;
        let object = entry.object.clone();
        let namespace = entry.name.namespace.clone();
        let pool = batch::pool_of(&object).map(|name| ObjectName { namespace, name: name.into() });
        let need = pool.as_ref().map_or(0, |_| batch::need(&object).saturating_sub(entry.reserved.len()));
        let created = object.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0);
        let wanted = pool.filter(|_| need > 0).map(|pool| (pool, created));
        let queued = entry.queued.clone();
        let mut changed = None;
        if queued != wanted
            && let Some((pool, created)) = queued
        {
            self.unqueue(&pool, created, uid);
            changed = Some(pool);
        }
        if let Some(entry) = self.batches.get_mut(uid) {
            entry.queued = wanted.clone();
        }
        if let Some((pool, created)) = wanted {
            let before = self.waiting.entry(pool.clone()).or_default().insert((created, uid.clone()), need);
            if before != Some(need) {
                self.touched.insert(Key::Pool(pool.clone()));
                changed = Some(pool);
            }
        }
        changed
    }

    fn unqueue(&mut self, pool: &ObjectName, created: Timestamp, uid: &Uid) {
        let Some(waiting) = self.waiting.get_mut(pool) else { return };
        waiting.remove(&(created, uid.clone()));
        if waiting.is_empty() {
            self.waiting.remove(pool);
        }
        self.touched.insert(Key::Pool(pool.clone()));
    }

    fn match_named(&mut self, pool: &ObjectName) {
        if let Some(uid) = self.pool_names.get(pool).cloned() {
            self.match_pool(&uid);
        }
    }

    /// A promise that will not be kept: the pod went, or the grant was refused for good.
    pub(super) fn drop_reservation(&mut self, batch: &Uid, pod: &str) {
        if let Some(entry) = self.batches.get_mut(batch) {
            entry.reserved.retain(|p| **p != *pod);
        }
        self.recount(batch);
        self.touch_batch(batch);
    }

    /// Gives promises back that the BatchSandbox does not want any more.
    pub fn return_reserved(&mut self, batch: &Uid, pods: &[Uid]) {
        for pod in pods {
            if self.reserved.get(pod) == Some(batch) {
                self.reserved.remove(pod);
                if let Some(entry) = self.batches.get_mut(batch) {
                    entry.reserved.retain(|p| p != pod);
                }
                self.refile(pod);
                self.touch_around(pod);
            }
        }
        // What it still wants is asked for anew: the promises had taken it out of the queue.
        if stands(Guard::PromiseAgain) {
            self.recount(batch);
            self.touch_batch(batch);
        }
    }

    /// What became of a claim.
    pub fn observe_claim(&mut self, batch: &Uid, pod: &Uid, epoch: i64, seen: ClaimSeen) {
        if let Some(entry) = self.batches.get_mut(batch) {
            let touch = seen != ClaimSeen::InFlight;
            entry.claims.insert(pod.clone(), (epoch, seen));
            if touch {
                entry.answered.insert(pod.clone(), self.now);
                self.touch_batch(batch);
            }
        }
    }

    /// The API server refused to create a pod of its own, or did not this time.
    pub fn observe_creation(&mut self, batch: &Uid, refusal: Option<Refusal>) {
        if let Some(entry) = self.batches.get_mut(batch)
            && entry.refusal != refusal
        {
            entry.refusal = refusal;
            self.touch_batch(batch);
        }
    }

    /// What an entrypoint does.
    pub fn observe_entrypoint(&mut self, batch: &Uid, pod: &Uid, status: EntrypointStatus) {
        if let Some(entry) = self.batches.get_mut(batch)
            && entry.entrypoints.get(pod) != Some(&status)
        {
            entry.entrypoints.insert(pod.clone(), status);
            self.touch_batch(batch);
        }
    }

    /// What a task-executor says of its tasks.
    pub fn observe_tasks(&mut self, batch: &Uid, pod: &Uid, seen: TasksSeen) {
        if let Some(entry) = self.batches.get_mut(batch)
            && entry.tasks.get(pod) != Some(&seen)
        {
            entry.tasks.insert(pod.clone(), seen);
            self.touch_batch(batch);
        }
    }

    /// What a look at this BatchSandbox sees; `None` when there is none of this name.
    pub fn batch_snapshot(&self, name: &ObjectName, now: Timestamp, steady: Instant) -> Option<BatchSnapshot> {
        let uid = self.batch_names.get(name)?;
        let entry = self.batches.get(uid)?;
        let own: Vec<Uid> = self.batch_pods.get(uid).into_iter().flatten().cloned().collect();
        let granted = entry.grants().iter().map(|g| Uid::from(g.pod_uid.as_str()));
        let heirs = self.inheritance(uid);
        let inherited = heirs.iter().flatten().flatten().filter_map(|i| i.pod.as_ref().map(|p| p.uid.clone()));
        let inherited: Vec<Uid> = inherited.collect();
        let pods: HashMap<Uid, PodView> = granted
            .chain(inherited)
            .chain(entry.reserved.iter().cloned())
            .chain(own.iter().cloned())
            .filter_map(|uid| self.pods.get(&uid).map(|e| (uid, e.view.clone())))
            .collect();
        let (shortage, pool_trouble) = self.shortage(uid, entry);
        let ready = pods.keys().filter_map(|uid| Some((uid.clone(), self.pods.get(uid)?.ready_seen?))).collect();
        Some(BatchSnapshot {
            now,
            steady,
            batch: entry.object.clone(),
            uid: uid.clone(),
            pods,
            reserved: entry.reserved.clone(),
            own,
            shortage,
            pool_trouble,
            claims: entry.claims.clone(),
            entrypoints: entry.entrypoints.clone(),
            tasks: entry.tasks.clone(),
            inherited: heirs,
            refusal: entry.refusal.clone(),
            epitaphs: entry.epitaphs.clone(),
            times: Times { seen: Some(entry.seen), ready, answered: entry.answered.clone() },
        })
    }

    fn shortage(&self, uid: &Uid, entry: &BatchEntry) -> (Option<Shortage>, Option<Trouble>) {
        let Some((pool_name, created)) = &entry.queued else { return (None, None) };
        let need = self.waiting.get(pool_name).and_then(|w| w.get(&(*created, uid.clone()))).copied().unwrap_or(0);
        let Some(pool_uid) = self.pool_names.get(pool_name) else { return (Some(Shortage::NoPool), None) };
        let Some(pool) = self.pools.get(pool_uid) else { return (Some(Shortage::NoPool), None) };
        if pool.object.metadata.deletion_timestamp.is_some() {
            return (Some(Shortage::PoolTerminating), None);
        }
        let (capacity, _) = Capacity::of(&pool.object.spec.capacity_spec);
        let pool_max = capacity.pool_max;
        if !grants::fits(&Request { batch: (), need, held: entry.held() }, pool_max) {
            return (Some(Shortage::NeverFits { pool_max }), None);
        }
        let shelf = self.shelves.get(pool_uid);
        let trouble = shelf
            .and_then(|s| s.failing())
            .and_then(|(uid, _)| self.pods.get(uid))
            .and_then(|e| e.view.held_up().cloned())
            .or_else(|| pool.memory.create_error.clone());
        let held = shelf.map_or(0, |s| s.of(Class::Held).len());
        if held + need > pool_max {
            return (Some(Shortage::AtCapacity { pool_max }), trouble);
        }
        (Some(Shortage::Starting), trouble)
    }
}

/// The pods in an object's grants, and whether it holds them.
fn claims_of(batch: &BatchSandbox) -> Vec<(Uid, bool)> {
    let grants = batch.status.iter().flat_map(|s| &s.grants);
    grants.map(|g| (g.pod_uid.as_str().into(), g.state.holds() || batch::is_kept(batch, g))).collect()
}

/// An object without status, to take another's place in the indexes.
trait DefaultLike {
    fn default_like(other: &Self) -> Self;
}

impl DefaultLike for BatchSandbox {
    fn default_like(other: &Self) -> Self {
        Self { status: None, ..other.clone() }
    }
}
