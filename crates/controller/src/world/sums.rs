//! Sums over everything, for the metrics.

use std::collections::BTreeMap;

use api_types::crd::BatchPhase;

use super::{Class, ObjectName, Shelf, World};
use crate::planner::pool::Counts;

/// The pods of one pool, counted, and how many are waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSums {
    /// The pool.
    pub name: ObjectName,
    /// Its pods.
    pub counts: Counts,
    /// Pods waited for by BatchSandboxes.
    pub demand: usize,
    /// Free pods that do not start.
    pub failing: usize,
}

impl World {
    /// The first `limit` pools by name, and how many there are.
    pub fn pool_sums(&self, limit: usize) -> (Vec<PoolSums>, usize) {
        let mut names: Vec<&ObjectName> = self.pool_names.keys().collect();
        names.sort();
        let empty = Shelf::default();
        let sums = names.iter().take(limit).filter_map(|name| {
            let uid = self.pool_names.get(name)?;
            let shelf = self.shelves.get(uid).unwrap_or(&empty);
            Some(PoolSums {
                name: (*name).clone(),
                counts: shelf.counts(self.pools.get(uid)?.memory.creating),
                demand: self.waiting.get(name).map_or(0, |waiting| waiting.values().sum()),
                failing: shelf.failing().map_or(0, |(_, n)| n),
            })
        });
        (sums.collect(), names.len())
    }

    /// BatchSandboxes by phase; those without one are new.
    pub fn phases(&self) -> BTreeMap<&'static str, usize> {
        let mut phases = BTreeMap::new();
        for entry in self.batches.values() {
            let phase = match entry.object.status.as_ref().and_then(|s| s.phase) {
                None => "New",
                Some(BatchPhase::Pending) => "Pending",
                Some(BatchPhase::Succeed) => "Succeed",
                Some(BatchPhase::Pausing) => "Pausing",
                Some(BatchPhase::Paused) => "Paused",
                Some(BatchPhase::Resuming) => "Resuming",
                Some(BatchPhase::Failed) => "Failed",
            };
            *phases.entry(phase).or_default() += 1;
        }
        phases
    }

    /// Pods known, and those of them that nobody will use again.
    pub fn pod_sums(&self) -> (usize, usize) {
        let spent = self.shelves.values().map(|s| s.of(Class::Spent).len()).sum();
        (self.pods.len(), spent)
    }
}
