//! How far the listings are: one for each kind and each watch.

use std::collections::HashMap;
use std::sync::Arc;

use super::Kind;

/// What one watch covers: a namespace, or all of them.
pub type Scope = Option<Arc<str>>;

/// How far one listing is.
#[derive(Debug, Default, Clone, Copy)]
struct List {
    round: u64,
    done: bool,
    listing: bool,
}

/// The listings of every kind. Without namespaces there is one for all.
#[derive(Debug, Default)]
pub(super) struct Lists {
    namespaces: Vec<Arc<str>>,
    whole: HashMap<Kind, List>,
    parts: HashMap<Arc<str>, HashMap<Kind, List>>,
}

impl Lists {
    pub(super) fn of(namespaces: &[String]) -> Self {
        Self { namespaces: namespaces.iter().map(|n| n.as_str().into()).collect(), ..Self::default() }
    }

    fn entry(&mut self, kind: Kind, scope: &Scope) -> &mut List {
        match scope {
            None => self.whole.entry(kind).or_default(),
            Some(namespace) => self.parts.entry(namespace.clone()).or_default().entry(kind).or_default(),
        }
    }

    /// The listing that covers a namespace.
    fn covering(&self, kind: Kind, namespace: &str) -> List {
        let part = self.parts.get(namespace).and_then(|kinds| kinds.get(&kind));
        part.or_else(|| self.whole.get(&kind)).copied().unwrap_or_default()
    }

    pub(super) fn begin(&mut self, kind: Kind, scope: &Scope) {
        let list = self.entry(kind, scope);
        list.round += 1;
        list.listing = true;
    }

    /// Ends a listing; what is older than the round it answers with was not named.
    pub(super) fn end(&mut self, kind: Kind, scope: &Scope) -> u64 {
        let list = self.entry(kind, scope);
        list.done = true;
        list.listing = false;
        list.round
    }

    pub(super) fn round(&self, kind: Kind, namespace: &str) -> u64 {
        self.covering(kind, namespace).round
    }

    /// Whether what is told now is a listing and no news.
    pub(super) fn listing(&self, kind: Kind, namespace: &str) -> bool {
        self.covering(kind, namespace).listing
    }

    /// Whether a kind was listed everywhere once.
    pub(super) fn is_listed(&self, kind: Kind) -> bool {
        if self.namespaces.is_empty() {
            return self.whole.get(&kind).is_some_and(|l| l.done);
        }
        let part = |n: &Arc<str>| self.parts.get(n).and_then(|kinds| kinds.get(&kind)).is_some_and(|l| l.done);
        self.namespaces.iter().all(part)
    }
}
