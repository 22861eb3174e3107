//! What older controllers left: BatchSandboxes whose annotations, and not their status, say which pods they hold.
//!
//! Such a record counts only until the object has grants of its own, and only for pods that an older controller made:
//! ours are never granted by annotation, so that nobody takes one by writing its name there.

use std::collections::BTreeSet;

use api_types::crd::{BatchSandbox, GrantState, PodNames};
use api_types::names::annotations;
use jiff::Timestamp;
use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};

use super::{ObjectName, Owner, PodView, Uid, World};
use crate::planner::batch;

/// A pod that an older controller gave to a BatchSandbox.
#[derive(Debug, Clone, PartialEq)]
pub struct Inherited {
    /// Its name.
    pub name: String,
    /// The pod, unless it is gone, ours, or somebody else's.
    pub pod: Option<PodView>,
    /// What follows from the annotations.
    pub state: GrantState,
}

/// The annotations of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    pool: ObjectName,
    created: Timestamp,
    /// Every pod ever granted, in that order; an error when it cannot be read.
    granted: Result<Vec<String>, String>,
    release: HashSet<String>,
    released: HashSet<String>,
}

impl Record {
    /// Reads an object; `None` when it is none of an older controller's.
    fn of(batch: &BatchSandbox) -> Option<Self> {
        let pool = batch::pool_of(batch)?;
        if batch.status.as_ref().is_some_and(|s| !s.grants.is_empty()) {
            return None;
        }
        let text = |key: &str| batch.metadata.annotations.as_ref().and_then(|a| a.get(key));
        let names = |key: &str| {
            let read = text(key).and_then(|t| serde_json::from_str::<PodNames>(t).ok());
            read.unwrap_or_default().pods.into_iter().collect()
        };
        let granted = text(annotations::ALLOC_STATUS).filter(|t| !t.is_empty())?;
        let granted = serde_json::from_str::<PodNames>(granted).map(|n| n.pods).map_err(|e| e.to_string());
        if granted.as_ref().is_ok_and(Vec::is_empty) {
            return None;
        }
        let namespace = batch.metadata.namespace.as_deref().unwrap_or_default();
        Some(Self {
            pool: ObjectName::new(namespace, pool),
            created: batch.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0),
            granted,
            release: names(annotations::ALLOC_RELEASE),
            released: names(annotations::ALLOC_RELEASED),
        })
    }

    /// Pods that it holds still.
    fn held(&self) -> impl Iterator<Item = ObjectName> {
        let granted = self.granted.as_deref().unwrap_or_default();
        let held = granted.iter().filter(|name| !self.released.contains(*name) && made_by(&self.pool.name, name));
        held.map(|name| ObjectName { namespace: self.pool.namespace.clone(), name: name.as_str().into() })
    }
}

/// Kubernetes: a pod with `generateName` is named by it and a suffix.
fn made_by(pool: &str, pod: &str) -> bool {
    pod.strip_prefix(pool).is_some_and(|rest| rest.starts_with('-'))
}

/// Whether an older controller may have made the pod for a pool.
fn may_be_inherited(pod: &PodView) -> bool {
    !pod.keyed && matches!(pod.owner, Some(Owner::Pool(_)))
}

/// The records of all objects, and the pods they may be about.
#[derive(Default)]
pub(super) struct Index {
    pods: HashMap<ObjectName, Uid>,
    records: HashMap<Uid, Record>,
    /// Who holds a pod by its record, the oldest first: two that name one pod are a fault of the past.
    holders: HashMap<ObjectName, BTreeSet<(Timestamp, Uid)>>,
    /// Pools of records that cannot be read.
    unsure: HashMap<ObjectName, usize>,
}

impl Index {
    pub(super) fn add_pod(&mut self, pod: &PodView) {
        if may_be_inherited(pod) {
            self.pods.insert(name_of(pod), pod.uid.clone());
        }
    }

    pub(super) fn remove_pod(&mut self, pod: &PodView) {
        let name = name_of(pod);
        if self.pods.get(&name) == Some(&pod.uid) {
            self.pods.remove(&name);
        }
    }

    /// Who holds the pod by its record.
    pub(super) fn holder(&self, pod: &PodView) -> Option<&Uid> {
        if self.holders.is_empty() || !may_be_inherited(pod) {
            return None;
        }
        self.holders.get(&name_of(pod))?.first().map(|(_, batch)| batch)
    }

    /// Whether a record that cannot be read may name the pod: then it is neither given away nor deleted.
    pub(super) fn is_unsure(&self, pod: &PodView) -> bool {
        !self.unsure.is_empty()
            && may_be_inherited(pod)
            && self.unsure.keys().any(|pool| pool.namespace == pod.namespace && made_by(&pool.name, &pod.name))
    }

    /// Pods that a record is, or may be, about.
    fn named_by(&self, record: &Record) -> Vec<ObjectName> {
        if record.granted.is_ok() {
            return record.held().collect();
        }
        let of_pool =
            |name: &&ObjectName| name.namespace == record.pool.namespace && made_by(&record.pool.name, &name.name);
        self.pods.keys().filter(of_pool).cloned().collect()
    }

    /// Keeps the record of an object; the pods whose holder may be another now.
    fn set(&mut self, uid: &Uid, record: Option<Record>) -> Vec<Uid> {
        if self.records.get(uid) == record.as_ref() {
            return Vec::new();
        }
        let mut changed = BTreeSet::new();
        if let Some(old) = self.records.remove(uid) {
            for name in old.held() {
                if let Some(holders) = self.holders.get_mut(&name) {
                    holders.remove(&(old.created, uid.clone()));
                    if holders.is_empty() {
                        self.holders.remove(&name);
                    }
                }
            }
            if old.granted.is_err()
                && let Some(n) = self.unsure.get_mut(&old.pool)
            {
                *n -= 1;
                if *n == 0 {
                    self.unsure.remove(&old.pool);
                }
            }
            changed.extend(self.named_by(&old));
        }
        if let Some(new) = record {
            for name in new.held() {
                self.holders.entry(name).or_default().insert((new.created, uid.clone()));
            }
            if new.granted.is_err() {
                *self.unsure.entry(new.pool.clone()).or_default() += 1;
            }
            changed.extend(self.named_by(&new));
            self.records.insert(uid.clone(), new);
        }
        changed.iter().filter_map(|name| self.pods.get(name).cloned()).collect()
    }
}

fn name_of(pod: &PodView) -> ObjectName {
    ObjectName { namespace: pod.namespace.clone(), name: pod.name.clone() }
}

/// Whether an object holds pods by an older controller's record that is not taken over yet.
pub(crate) fn is_inherited(batch: &BatchSandbox) -> bool {
    Record::of(batch).is_some()
}

impl World {
    /// Keeps what an object says by its annotations. Pods it names no more after it is gone were used.
    pub(super) fn index_record(&mut self, uid: &Uid, batch: Option<&BatchSandbox>) {
        let gone = batch.is_none();
        let changed = self.inherited.set(uid, batch.and_then(Record::of));
        for pod in changed {
            let heir = self.pods.get(&pod).and_then(|e| self.inherited.holder(&e.view)).cloned();
            if let Some(heir) = heir {
                self.void_promise(&pod, &heir);
            }
            let held = self.pods.get(&pod).is_some_and(|e| self.holder_of(&e.view).is_some());
            if gone && !held {
                self.soil(&pod);
            }
            self.refile(&pod);
            self.touch_around(&pod);
        }
    }

    /// What an object inherited, in the order in which it was granted; an error when it cannot be read.
    pub(super) fn inheritance(&self, uid: &Uid) -> Option<Result<Vec<Inherited>, String>> {
        let record = self.inherited.records.get(uid)?;
        let granted = match &record.granted {
            Ok(granted) => granted,
            Err(error) => return Some(Err(error.clone())),
        };
        let look = |name: &String| {
            let key = ObjectName { namespace: record.pool.namespace.clone(), name: name.as_str().into() };
            let view = self.inherited.pods.get(&key).and_then(|uid| self.pods.get(uid)).map(|e| e.view.clone());
            let pod = view.filter(|view| self.holder_of(view).is_none_or(|holder| holder == uid));
            let state = match (record.released.contains(name), record.release.contains(name), &pod) {
                (true, _, _) => GrantState::Released,
                (false, true, _) => GrantState::Releasing,
                (false, false, Some(_)) => GrantState::Claimed,
                (false, false, None) => GrantState::Lost,
            };
            Inherited { name: name.clone(), pod, state }
        };
        Some(Ok(granted.iter().map(look).collect()))
    }
}
