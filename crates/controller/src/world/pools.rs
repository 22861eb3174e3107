//! Pools, their requests, and what is remembered about them between two looks.

use std::sync::Arc;

use api_types::crd::Pool;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::ResourceExt as _;
use tokio::time::Instant;

use super::{Class, Key, Kind, ObjectName, PodView, Shelf, Trouble, Uid, World, version_of};
use crate::guard::{Guard, stands};
use crate::planner::grants::{self, Request};
use crate::planner::pool::{Capacity, Counts, pace};
use crate::planner::template;

/// A pool's template, read once for each generation.
#[derive(Debug, Clone)]
pub enum Template {
    /// It can be used.
    Usable {
        /// The template.
        template: Arc<PodTemplateSpec>,
        /// Its revision.
        revision: Arc<str>,
    },
    /// It cannot, and why.
    Malformed(String),
}

impl Template {
    /// Its revision, while it can be used.
    fn revision(&self) -> Option<&Arc<str>> {
        match self {
            Self::Usable { revision, .. } => Some(revision),
            Self::Malformed(_) => None,
        }
    }

    /// The same template by another name.
    fn called(self, name: Option<Arc<str>>) -> Self {
        match (self, name) {
            (Self::Usable { template, .. }, Some(revision)) => Self::Usable { template, revision },
            (same, _) => same,
        }
    }
}

/// How the last controller called the template that the pool still has. Another one reckons revisions another way, and
/// every idle pod would be replaced when it is followed.
fn inherited_revision(pool: &Pool) -> Option<Arc<str>> {
    let status = pool.status.as_ref().filter(|s| !s.revision.is_empty())?;
    (Some(status.observed_generation) == pool.metadata.generation).then(|| status.revision.as_str().into())
}

/// What is remembered about a pool.
#[derive(Debug, Clone, Default)]
pub struct PoolMemory {
    /// Whether the buffer is being filled.
    pub filling: bool,
    /// Pods asked of the API and not answered yet.
    pub creating: usize,
    /// Why the last creation failed, until one succeeds.
    pub create_error: Option<Trouble>,
    /// Pods that ended before they were ready, in a row.
    pub false_starts: u32,
    /// Creations refused by the API server, in a row.
    pub refusals: u32,
    /// When the next pod may be created after false starts or refusals.
    pub create_after: Option<Instant>,
    /// When status was written last.
    pub status_written: Option<Instant>,
}

/// A pool.
pub struct PoolEntry {
    /// Namespace and name.
    pub name: ObjectName,
    /// The object.
    pub object: Arc<Pool>,
    pub(super) version: u64,
    pub(super) round: u64,
    template: Template,
    /// Revision that the template has by our reckoning; an inherited pool may call it by another name.
    reckoned: Option<Arc<str>>,
    /// What is remembered.
    pub memory: PoolMemory,
}

/// What a look at a pool sees.
pub struct PoolSnapshot {
    /// The object.
    pub pool: Arc<Pool>,
    /// Its UID.
    pub uid: Uid,
    /// Its template.
    pub template: Template,
    /// Its pods, counted.
    pub counts: Counts,
    /// Pods of the current revision.
    pub updated: usize,
    /// Free pods of an older revision: all that are not ready, and of the ready ones as many as may go at once.
    pub outdated: Vec<PodView>,
    /// Pods waited for by requests that could fit.
    pub demand: usize,
    /// Pods to be deleted whatever the size, and whether somebody had them.
    pub spent: Vec<(PodView, bool)>,
    /// Free pods in the order in which they would be given up: not yet ready first, then the oldest.
    pub surplus: Vec<PodView>,
    /// One pod that does not start, and how many.
    pub failing: Option<(PodView, usize)>,
    /// What is remembered.
    pub memory: PoolMemory,
}

impl PoolEntry {
    /// Revision of the template, while it can be used.
    fn revision(&self) -> Option<&str> {
        self.template.revision().map(AsRef::as_ref)
    }
}

impl World {
    /// A Pool as it is now.
    pub fn apply_pool(&mut self, pool: Pool) {
        let Some(uid) = pool.uid().map(Uid::from) else { return };
        let name = ObjectName::new(&pool.namespace().unwrap_or_default(), &pool.name_any());
        let version = version_of(pool.resource_version().as_deref());
        let round = self.lists.round(Kind::Pool, &name.namespace);
        if let Some(old) = self.pool_names.get(&name).filter(|old| **old != uid).cloned() {
            self.remove_pool(&old);
        }
        let previous = self.pools.get_mut(&uid);
        if let Some(entry) = &previous
            && version != 0
            && version < entry.version
        {
            if let Some(entry) = previous {
                entry.round = round;
            }
            return;
        }
        let (template, reckoned, memory) = match previous {
            Some(entry) if entry.object.metadata.generation == pool.metadata.generation => {
                (entry.template.clone(), entry.reckoned.clone(), entry.memory.clone())
            }
            Some(entry) => {
                // A new spec deserves a new try.
                let memory = PoolMemory { false_starts: 0, refusals: 0, create_after: None, ..entry.memory.clone() };
                let template = template::read(&pool);
                let reckoned = template.revision().cloned();
                let same = entry.template.revision().filter(|_| entry.reckoned == reckoned).cloned();
                (template.called(same), reckoned, memory)
            }
            None => {
                let template = template::read(&pool);
                let reckoned = template.revision().cloned();
                (template.called(inherited_revision(&pool)), reckoned, PoolMemory::default())
            }
        };
        let is_new_spec = previous_generation(self.pools.get(&uid)) != pool.metadata.generation;
        let entry =
            PoolEntry { name: name.clone(), object: Arc::new(pool), version, round, template, reckoned, memory };
        self.pools.insert(uid.clone(), entry);
        self.pool_names.insert(name.clone(), uid.clone());
        self.touched.insert(Key::Pool(name.clone()));
        self.match_pool(&uid);
        if is_new_spec {
            self.touch_waiting(&name);
        }
    }

    /// The Pool is gone.
    pub fn remove_pool(&mut self, uid: &str) {
        let Some(entry) = self.pools.remove(uid) else { return };
        if self.pool_names.get(&entry.name).is_some_and(|u| **u == *uid) {
            self.pool_names.remove(&entry.name);
        }
        self.touch_waiting(&entry.name);
        self.touched.insert(Key::Pool(entry.name));
    }

    /// Whoever waits for pods of this pool should look again.
    pub fn touch_waiting(&mut self, pool: &ObjectName) {
        let waiting: Vec<Uid> =
            self.waiting.get(pool).into_iter().flat_map(|w| w.keys().map(|(_, uid)| uid.clone())).collect();
        waiting.iter().for_each(|uid| self.touch_batch(uid));
    }

    /// Promises ready pods to whoever waits, by the planner's rule.
    pub(super) fn match_pool(&mut self, uid: &Uid) {
        if self.standing_by && stands(Guard::StandBy) {
            return;
        }
        let Some(pool) = self.pools.get(uid) else { return };
        if pool.object.metadata.deletion_timestamp.is_some() {
            return;
        }
        let name = pool.name.clone();
        let Some(waiting) = self.waiting.get(&name) else { return };
        let Some(shelf) = self.shelves.get(uid) else { return };
        let (capacity, _) = Capacity::of(&pool.object.spec.capacity_spec);
        let requests = waiting.iter().map(|((_, batch), need)| Request {
            batch: batch.clone(),
            need: *need,
            held: self.batches.get(batch).map_or(0, |b| b.held()),
        });
        let count = shelf.of(Class::Ready).len();
        let idle = shelf.offered(pool.revision()).cloned();
        let assignments = grants::assign(requests, idle, count, capacity.pool_max);
        // First every promise, then the bookkeeping: a pod must not look free in between.
        for assignment in &assignments {
            for pod in &assignment.pods {
                self.reserved.insert(pod.clone(), assignment.batch.clone());
            }
        }
        for assignment in assignments {
            assignment.pods.iter().for_each(|pod| self.refile(pod));
            if let Some(batch) = self.batches.get_mut(&assignment.batch) {
                batch.reserved.extend(assignment.pods);
            }
            self.requeue(&assignment.batch);
            self.touch_batch(&assignment.batch);
            self.touched.insert(Key::Pool(name.clone()));
        }
    }

    /// What a look at this pool sees; `None` when there is none of this name.
    pub fn pool_snapshot(&self, name: &ObjectName) -> Option<PoolSnapshot> {
        let uid = self.pool_names.get(name)?;
        let entry = self.pools.get(uid)?;
        let empty = Shelf::default();
        let shelf = self.shelves.get(uid).unwrap_or(&empty);
        let (capacity, _) = Capacity::of(&entry.object.spec.capacity_spec);
        let demand = self.waiting.get(name).map_or(0, |waiting| {
            waiting
                .iter()
                .map(|((_, batch), need)| {
                    let held = self.batches.get(batch).map_or(0, |b| b.held());
                    let request = Request { batch: (), need: *need, held };
                    if grants::fits(&request, capacity.pool_max) { *need } else { 0 }
                })
                .sum()
        });
        let view = |uid: &Uid| self.pods.get(uid).map(|e| e.view.clone());
        let revision = entry.revision();
        let mut counts = shelf.counts(entry.memory.creating);
        counts.outdated = revision.filter(|_| stands(Guard::OldRevision)).map_or(0, |r| shelf.outdated_count(r));
        // Of those that are ready no more are looked at than may go at once.
        let pacing = entry.object.spec.update_strategy.as_ref().and_then(|u| u.max_unavailable.as_ref());
        let mut at_once = pace(pacing, counts.schedulable());
        let outdated = revision.filter(|_| counts.outdated > 0).into_iter().flat_map(|r| shelf.outdated(r));
        let outdated = outdated.filter(|(ready, _)| {
            let counted = !ready || at_once > 0;
            at_once -= usize::from(*ready && counted);
            counted
        });
        let outdated: Vec<PodView> = outdated.filter_map(|(_, uid)| view(uid)).collect();
        // Only a pool that is too large needs the list, and never more of it than it may give up.
        let over_band = counts.free() > demand + capacity.buffer_max;
        let excess = counts.free().saturating_sub(demand + capacity.buffer_min);
        let over_max = counts.schedulable().saturating_sub(capacity.pool_max);
        let excess = if over_band { excess.max(over_max) } else { over_max };
        let surplus = shelf.of(Class::Starting).rev().chain(shelf.of(Class::Ready)).take(excess);
        Some(PoolSnapshot {
            pool: entry.object.clone(),
            uid: uid.clone(),
            template: entry.template.clone(),
            counts,
            updated: shelf.updated(revision.unwrap_or_default()),
            outdated,
            demand,
            spent: shelf.of(Class::Spent).filter_map(|uid| view(uid).map(|v| (v, self.was_used(uid)))).collect(),
            surplus: surplus.filter_map(view).collect(),
            failing: shelf.failing().and_then(|(uid, n)| view(uid).map(|v| (v, n))),
            memory: entry.memory.clone(),
        })
    }

    /// Somebody should look at this pool again.
    pub fn touch_pool(&mut self, pool: &Uid) {
        self.touched.extend(self.pools.get(pool).map(|e| Key::Pool(e.name.clone())));
    }

    /// Changes what is remembered about a pool.
    pub fn remember(&mut self, pool: &Uid, change: impl FnOnce(&mut PoolMemory)) {
        if let Some(entry) = self.pools.get_mut(pool) {
            change(&mut entry.memory);
        }
    }
}

fn previous_generation(entry: Option<&PoolEntry>) -> Option<i64> {
    entry.and_then(|e| e.object.metadata.generation)
}
