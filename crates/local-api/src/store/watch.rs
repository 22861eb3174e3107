//! Fan-out of changes to watchers: a bounded queue each, indexed by what they watch.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Key, Stored};

/// One committed write.
#[derive(Debug)]
pub struct Change {
    /// The object.
    pub key: Key,
    /// The write's version.
    pub rv: u64,
    /// The object before.
    pub old: Option<Arc<Stored>>,
    /// The object after, or its last state when it was removed.
    pub new: Arc<Stored>,
    /// Whether it was removed.
    pub removed: bool,
    lines: [OnceLock<Bytes>; 3],
}

/// What a watcher is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// It came into the watcher's sight.
    Added = 0,
    /// It changed.
    Modified = 1,
    /// It left the watcher's sight.
    Deleted = 2,
}

impl Verb {
    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

impl Change {
    pub(super) fn new(key: Key, rv: u64, old: Option<Arc<Stored>>, new: Arc<Stored>, removed: bool) -> Self {
        Self { key, rv, old, new, removed, lines: Default::default() }
    }

    /// The event's line with the object as stored, encoded once for all watchers.
    pub fn line(&self, verb: Verb) -> Bytes {
        self.lines[verb as usize].get_or_init(|| event_line(verb.word(), self.new.json())).clone()
    }
}

/// One line of a watch's body.
pub fn event_line(word: &str, object: &[u8]) -> Bytes {
    let mut line = Vec::with_capacity(object.len() + word.len() + 24);
    line.extend_from_slice(b"{\"type\":\"");
    line.extend_from_slice(word.as_bytes());
    line.extend_from_slice(b"\",\"object\":");
    line.extend_from_slice(object);
    line.extend_from_slice(b"}\n");
    line.into()
}

/// Which objects of a table a watcher wants to hear of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All.
    All,
    /// Those of a namespace.
    Namespace(Arc<str>),
    /// One object of a namespace (or cluster-wide, with an empty namespace).
    One(Arc<str>, Arc<str>),
}

impl Scope {
    pub(super) fn covers(&self, key: &Key) -> bool {
        match self {
            Self::All => true,
            Self::Namespace(ns) => *ns == key.namespace,
            Self::One(ns, name) => *ns == key.namespace && *name == key.name,
        }
    }

    pub(super) fn namespace(&self) -> Option<Arc<str>> {
        match self {
            Self::All => None,
            Self::Namespace(ns) | Self::One(ns, _) => Some(ns.clone()),
        }
    }
}

struct Subscriber {
    queue: mpsc::Sender<Arc<Change>>,
    lagged: Arc<AtomicBool>,
    /// Bytes of JSON that wait in the queue.
    waiting: Arc<AtomicUsize>,
}

#[derive(Default)]
pub(super) struct Watchers {
    by_scope: HashMap<Scope, Vec<Subscriber>>,
}

impl Watchers {
    pub(super) fn subscribe(&mut self, scope: Scope, queue: usize) -> Feed {
        let (sender, receiver) = mpsc::channel(queue.max(1));
        let lagged = Arc::new(AtomicBool::new(false));
        let waiting = Arc::new(AtomicUsize::new(0));
        // Watches that ended are swept here and on publish, so a table nobody writes to does not pile them up.
        self.by_scope.retain(|_, list| {
            list.retain(|s| !s.queue.is_closed());
            !list.is_empty()
        });
        let subscriber = Subscriber { queue: sender, lagged: lagged.clone(), waiting: waiting.clone() };
        self.by_scope.entry(scope).or_default().push(subscriber);
        Feed { backlog: VecDeque::new(), queue: receiver, lagged, waiting }
    }

    /// Never waits: a watcher whose queue is full is cut off and finds out when it has read what it had.
    pub(super) fn publish(&mut self, change: &Arc<Change>, most: usize) {
        let key = &change.key;
        let weight = change.new.json().len();
        let scopes =
            [Scope::All, Scope::Namespace(key.namespace.clone()), Scope::One(key.namespace.clone(), key.name.clone())];
        for scope in scopes {
            let Some(list) = self.by_scope.get_mut(&scope) else { continue };
            list.retain(|subscriber| {
                let waiting = subscriber.waiting.fetch_add(weight, Ordering::AcqRel);
                // One change always fits, however large it is.
                let full = waiting > 0 && waiting + weight > most;
                match if full { Err(true) } else { subscriber.queue.try_send(change.clone()).map_err(is_full) } {
                    Ok(()) => true,
                    Err(full) => {
                        subscriber.lagged.fetch_or(full, Ordering::AcqRel);
                        false
                    }
                }
            });
            if list.is_empty() {
                self.by_scope.remove(&scope);
            }
        }
    }

    pub(super) fn end(&mut self) {
        self.by_scope.clear();
    }
}

fn is_full(error: mpsc::error::TrySendError<Arc<Change>>) -> bool {
    matches!(error, mpsc::error::TrySendError::Full(_))
}

/// A watcher's end of the queue.
#[derive(Debug)]
pub struct Feed {
    backlog: VecDeque<Arc<Change>>,
    queue: mpsc::Receiver<Arc<Change>>,
    lagged: Arc<AtomicBool>,
    waiting: Arc<AtomicUsize>,
}

impl Feed {
    /// Puts what happened before the feed began in front of it.
    pub(super) fn begin_with(&mut self, backlog: VecDeque<Arc<Change>>) {
        self.backlog = backlog;
    }

    /// The next change; `None` when the feed has ended.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arc<Change>>> {
        match self.backlog.pop_front() {
            Some(change) => Poll::Ready(Some(change)),
            None => {
                let polled = self.queue.poll_recv(cx);
                if let Poll::Ready(Some(change)) = &polled {
                    self.waiting.fetch_sub(change.new.json().len(), Ordering::AcqRel);
                }
                polled
            }
        }
    }

    /// The next change; `None` when the feed has ended.
    pub async fn next(&mut self) -> Option<Arc<Change>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Whether it ended because the watcher was too slow.
    pub fn lagged(&self) -> bool {
        self.lagged.load(Ordering::Acquire)
    }

    pub(super) fn is_drained(&self) -> bool {
        self.backlog.is_empty() && self.queue.is_empty()
    }
}
