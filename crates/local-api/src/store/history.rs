//! What a table remembers of its past: encoded, so that old versions cost what they weigh and no more.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::{Change, Key, Limits, Scope, Stored};

/// One change of the past.
#[derive(Debug, Clone)]
struct Past {
    key: Key,
    rv: u64,
    /// The object before, with its version; shared with the change that made it.
    old: Option<(u64, Bytes)>,
    new: Bytes,
    removed: bool,
}

/// The last changes of a table.
#[derive(Debug, Default)]
pub(super) struct History {
    changes: VecDeque<Past>,
    bytes: usize,
    /// Version below which everything is forgotten.
    floor: u64,
}

/// Changes of the past that a new watch is to be told, to be decoded without the lock.
pub(super) struct Backlog(Vec<Past>);

impl History {
    pub(super) fn starting_at(floor: u64) -> Self {
        Self { floor, ..Self::default() }
    }

    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    /// Remembers a change, and forgets the oldest beyond the limits.
    pub(super) fn push(&mut self, change: &Change, limits: &Limits) {
        let new = change.new.json().clone();
        self.bytes += new.len();
        self.changes.push_back(Past {
            key: change.key.clone(),
            rv: change.rv,
            old: change.old.as_ref().map(|o| (o.rv, o.json().clone())),
            new,
            removed: change.removed,
        });
        while self.changes.len() > limits.history || self.bytes > limits.history_bytes {
            let Some(gone) = self.changes.pop_front() else { break };
            self.bytes -= gone.new.len();
            self.floor = gone.rv;
        }
    }

    /// What happened after `since` in `scope`.
    pub(super) fn after(&self, since: u64, scope: &Scope) -> Backlog {
        let from = self.changes.partition_point(|c| c.rv <= since);
        Backlog(self.changes.range(from..).filter(|c| scope.covers(&c.key)).cloned().collect())
    }
}

impl Backlog {
    pub(super) fn nothing() -> Self {
        Self(Vec::new())
    }

    pub(super) fn decode(self) -> VecDeque<Arc<Change>> {
        self.0
            .into_iter()
            .filter_map(|past| {
                let old = match past.old {
                    Some((rv, json)) => Some(Arc::new(Stored::decode(rv, json)?)),
                    None => None,
                };
                let new = Arc::new(Stored::decode(past.rv, past.new)?);
                Some(Arc::new(Change::new(past.key, past.rv, old, new, past.removed)))
            })
            .collect()
    }
}
