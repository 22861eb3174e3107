//! The pods of one pool, sorted by what may be done with them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;
use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};

use super::{PodView, Uid};
use crate::planner::pool::Counts;

/// How many UIDs of deleted pods are remembered: more than can be created while one answer is under way.
const REMEMBERED: usize = 16_384;

/// What may be done with a pool's pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Free, ready, as new: can be granted.
    Ready,
    /// Free, not ready yet.
    Starting,
    /// Reserved or granted.
    Held,
    /// To be deleted.
    Spent,
    /// On its way out.
    Terminating,
}

const CLASSES: usize = 5;

/// The pods of one pool.
#[derive(Debug, Default)]
pub struct Shelf {
    /// By class, each oldest first; the ready ones by the time since when they are.
    classes: [BTreeSet<(Timestamp, Uid)>; CLASSES],
    /// Pods alive, by revision.
    revisions: HashMap<String, usize>,
    /// Free pods by revision, those that are not ready first, then the longest ready.
    free: BTreeMap<String, BTreeSet<(bool, Timestamp, Uid)>>,
    /// Pods that do not start, in the order of their UIDs.
    failing: BTreeSet<Uid>,
}

impl Shelf {
    fn order(class: Class, pod: &PodView) -> (Timestamp, Uid) {
        let time = if class == Class::Ready { pod.ready_since.unwrap_or(pod.created) } else { pod.created };
        (time, pod.uid.clone())
    }

    /// Adds a pod.
    pub(super) fn put(&mut self, class: Class, pod: &PodView) {
        self.classes[class as usize].insert(Self::order(class, pod));
        if class != Class::Terminating {
            *self.revisions.entry(pod.revision.clone().unwrap_or_default()).or_default() += 1;
        }
        if matches!(class, Class::Ready | Class::Starting) {
            let (time, uid) = Self::order(class, pod);
            let revision = pod.revision.clone().unwrap_or_default();
            self.free.entry(revision).or_default().insert((class == Class::Ready, time, uid));
        }
        if class == Class::Starting && pod.held_up().is_some() {
            self.failing.insert(pod.uid.clone());
        }
    }

    /// Removes a pod; it may have changed since it was put here.
    pub(super) fn take(&mut self, class: Class, pod: &PodView) {
        let set = &mut self.classes[class as usize];
        if !set.remove(&Self::order(class, pod)) {
            set.retain(|(_, uid)| *uid != pod.uid);
        }
        if class != Class::Terminating {
            let revision = pod.revision.clone().unwrap_or_default();
            if let Some(n) = self.revisions.get_mut(&revision) {
                *n -= 1;
                if *n == 0 {
                    self.revisions.remove(&revision);
                }
            }
        }
        if matches!(class, Class::Ready | Class::Starting) {
            let (time, uid) = Self::order(class, pod);
            let key = (class == Class::Ready, time, uid);
            let revision = pod.revision.as_deref().unwrap_or_default();
            if !self.free.get_mut(revision).is_some_and(|set| set.remove(&key)) {
                self.free.values_mut().for_each(|set| set.retain(|(_, _, uid)| *uid != pod.uid));
            }
            self.free.retain(|_, set| !set.is_empty());
        }
        self.failing.remove(&pod.uid);
    }

    /// Free pods of any revision but this one: for each whether it is ready.
    pub fn outdated<'a>(&'a self, revision: &'a str) -> impl Iterator<Item = (bool, &'a Uid)> {
        let others = self.free.iter().filter(move |(other, _)| *other != revision);
        others.flat_map(|(_, set)| set.iter().map(|(ready, _, uid)| (*ready, uid)))
    }

    /// How many of them there are.
    pub fn outdated_count(&self, revision: &str) -> usize {
        self.free.iter().filter(|(other, _)| *other != revision).map(|(_, set)| set.len()).sum()
    }

    /// Ready pods, those of this revision first, the longest ready before others.
    pub fn offered<'a>(&'a self, revision: Option<&'a str>) -> Box<dyn Iterator<Item = &'a Uid> + 'a> {
        match revision.filter(|revision| self.outdated_count(revision) > 0) {
            None => Box::new(self.of(Class::Ready)),
            Some(revision) => {
                let ready = |set: &'a BTreeSet<(bool, Timestamp, Uid)>| {
                    set.iter().filter(|(ready, ..)| *ready).map(|(_, _, uid)| uid)
                };
                let current = self.free.get(revision).into_iter().flat_map(ready);
                let others = self.outdated(revision).filter(|(ready, _)| *ready).map(|(_, uid)| uid);
                Box::new(current.chain(others))
            }
        }
    }

    /// Whether no pod is left.
    pub fn is_empty(&self) -> bool {
        self.classes.iter().all(BTreeSet::is_empty)
    }

    /// Pods of a class, oldest first.
    pub fn of(&self, class: Class) -> impl DoubleEndedIterator<Item = &Uid> + ExactSizeIterator {
        self.classes[class as usize].iter().map(|(_, uid)| uid)
    }

    /// Pods alive of a revision.
    pub fn updated(&self, revision: &str) -> usize {
        self.revisions.get(revision).copied().unwrap_or(0)
    }

    /// A pod that does not start, if there is one, and how many there are.
    pub fn failing(&self) -> Option<(&Uid, usize)> {
        self.failing.first().map(|uid| (uid, self.failing.len()))
    }

    /// The counts that size a pool; creations under way are counted elsewhere.
    pub fn counts(&self, creating: usize) -> Counts {
        let count = |c: Class| self.classes[c as usize].len();
        Counts {
            ready: count(Class::Ready),
            starting: count(Class::Starting),
            held: count(Class::Held),
            spent: count(Class::Spent),
            terminating: count(Class::Terminating),
            creating,
            outdated: 0,
        }
    }
}

/// The last UIDs that were put in.
#[derive(Debug, Default)]
pub(super) struct Recent {
    order: VecDeque<Uid>,
    set: HashSet<Uid>,
}

impl Recent {
    pub(super) fn insert(&mut self, uid: Uid) {
        if self.set.insert(uid.clone()) {
            self.order.push_back(uid);
            if self.order.len() > REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.set.remove(&oldest);
            }
        }
    }

    pub(super) fn contains(&self, uid: &str) -> bool {
        self.set.contains(uid)
    }
}
