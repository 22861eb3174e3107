//! The objects: one counter, one lock, one log of changes that every watcher is fed from.
//!
//! A write is compare-and-set: the caller computes the new object without the lock and hands it in with the
//! version it started from. Under the lock only the check, the log record and the fan-out happen.

mod history;
mod labels;
mod log;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;

use crate::error::ApiError;
use crate::object;

pub use self::log::OpenError;
pub use self::watch::{Change, Feed, Scope, Verb, event_line};

/// Names the table an object lives in: `plural` or `plural.group`.
pub type Table = Arc<str>;

/// Where one object lives.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Its table.
    pub table: Table,
    /// Its namespace, empty for cluster-wide objects.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl Key {
    /// The key of `name` in `namespace` of `table`.
    pub fn new(table: &Table, namespace: &str, name: &str) -> Self {
        Self { table: table.clone(), namespace: namespace.into(), name: name.into() }
    }
}

/// One version of one object, immutable, encoded at most once.
#[derive(Debug)]
pub struct Stored {
    /// The object.
    pub value: Value,
    /// Its version.
    pub rv: u64,
    json: OnceLock<Bytes>,
}

impl Stored {
    fn new(value: Value, rv: u64) -> Self {
        Self { value, rv, json: OnceLock::new() }
    }

    /// One version out of its encoded form; nothing when that is none.
    fn decode(rv: u64, json: Bytes) -> Option<Self> {
        let stored = Self::new(serde_json::from_slice(&json).ok()?, rv);
        let _ = stored.json.set(json);
        Some(stored)
    }

    /// An object that is shown but not kept, as a dry run's.
    pub fn unsaved(value: Value) -> Self {
        let rv = object::resource_version(&value);
        Self::new(value, rv)
    }

    /// The object as JSON.
    pub fn json(&self) -> &Bytes {
        self.json.get_or_init(|| Bytes::from(encode(&self.value)))
    }
}

/// JSON text of `value`. Writing a `Value` to memory cannot fail; an empty text would be seen at once.
pub fn encode(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// What must be true of the stored object for a write to go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// No such object.
    Absent,
    /// This version is the newest.
    Version(u64),
}

/// What a write does.
#[derive(Debug)]
pub enum Write {
    /// Store this object.
    Put(Value),
    /// Remove the object; the value is its last state, for the watchers.
    Remove(Value),
}

/// Why a write did not go through.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The expectation did not hold: somebody else was first.
    #[error("the stored object is not the one expected")]
    Stale,
    /// The caller's own check under the lock said no.
    #[error(transparent)]
    Refused(ApiError),
    /// The change could not be made durable; nothing was changed.
    #[error("cannot write to the store: {0}")]
    Io(std::io::Error),
}

impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stale => Self::new(409, "Conflict", error.to_string()),
            WriteError::Refused(inner) => inner,
            WriteError::Io(io) if is_full(&io) => {
                let mut full = Self::new(
                    507,
                    "InsufficientStorage",
                    format!("the embedded cluster's disk is full, nothing was changed: {io}"),
                );
                full.details.retry_after = Some(5);
                full
            }
            WriteError::Io(io) => Self::internal(format!("cannot write to the store, nothing was changed: {io}")),
        }
    }
}

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// How much is remembered and queued.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Changes kept a table, for watches that start in the past.
    pub history: usize,
    /// Bytes of JSON that these may hold together.
    pub history_bytes: usize,
    /// Changes queued a watcher before it is ended with 410.
    pub queue: usize,
    /// Bytes of JSON that these may hold together.
    pub queue_bytes: usize,
    /// Events kept; the oldest go first, and each an hour after it was last seen.
    pub events: usize,
    /// Bytes from which on the log of a durable store is rewritten when most of it is stale.
    pub compact_from: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            history: 2_048,
            history_bytes: 8 << 20,
            queue: 4_096,
            queue_bytes: 32 << 20,
            events: 5_000,
            compact_from: 32 << 20,
        }
    }
}

/// Namespace and name.
type Slot = (Arc<str>, Arc<str>);
type Entries = BTreeMap<Slot, Arc<Stored>>;

#[derive(Default)]
pub(crate) struct Rows {
    pub(crate) objects: Entries,
    labels: labels::Labels,
    history: history::History,
    watchers: watch::Watchers,
}

/// Everything under the lock.
#[derive(Default)]
pub struct State {
    rv: u64,
    /// Version at start: older history was never seen by this process.
    start: u64,
    tables: HashMap<Table, Rows>,
    by_uid: HashMap<String, Key>,
    by_owner: HashMap<String, BTreeSet<Key>>,
    log: Option<log::Log>,
    limits: Limits,
}

impl State {
    /// The newest version of anything.
    pub fn version(&self) -> u64 {
        self.rv
    }

    /// How much is remembered and queued.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// One object.
    pub fn get(&self, key: &Key) -> Option<Arc<Stored>> {
        self.tables.get(&key.table)?.objects.get(&(key.namespace.clone(), key.name.clone())).cloned()
    }

    /// The objects of a table in the order of namespace and name, optionally of one namespace.
    pub fn scan<'a>(&'a self, table: &str, namespace: Option<&str>) -> Box<dyn Iterator<Item = &'a Arc<Stored>> + 'a> {
        let Some(rows) = self.tables.get(table) else { return Box::new(std::iter::empty()) };
        match namespace {
            None => Box::new(rows.objects.values()),
            Some(ns) => {
                let ns: Arc<str> = ns.into();
                let from = Bound::Included((ns.clone(), Arc::from("")));
                Box::new(
                    rows.objects
                        .range((from, Bound::Unbounded))
                        .take_while(move |((n, _), _)| *n == ns)
                        .map(|(_, v)| v),
                )
            }
        }
    }

    /// How many objects a table holds.
    pub fn count(&self, table: &str) -> usize {
        self.tables.get(table).map_or(0, |rows| rows.objects.len())
    }

    /// The objects of a table that have one of these values under a label, in the order of namespace and name;
    /// nothing when they can only be found by looking at all.
    pub fn labelled(
        &mut self,
        table: &str,
        namespace: Option<&str>,
        key: &str,
        values: &[String],
    ) -> Option<Vec<Arc<Stored>>> {
        let Some(rows) = self.tables.get_mut(table) else { return Some(Vec::new()) };
        let Rows { objects, labels, .. } = rows;
        labels
            .prepare(key, objects)
            .then(|| labels.find(key, values, namespace).filter_map(|slot| objects.get(slot).cloned()).collect())
    }

    /// Tables that hold something.
    pub fn tables(&self) -> impl Iterator<Item = &Table> {
        self.tables.iter().filter(|(_, rows)| !rows.objects.is_empty()).map(|(table, _)| table)
    }

    /// The object with this UID.
    pub fn by_uid(&self, uid: &str) -> Option<&Key> {
        self.by_uid.get(uid)
    }

    /// The objects that name this UID as an owner.
    pub fn dependents(&self, uid: &str) -> impl Iterator<Item = &Key> {
        self.by_owner.get(uid).into_iter().flatten()
    }

    fn index(&mut self, key: &Key, old: Option<&Stored>, new: Option<&Stored>) {
        if let Some(old) = old {
            if new.is_none_or(|n| object::uid(&n.value) != object::uid(&old.value)) {
                self.by_uid.remove(object::uid(&old.value));
            }
            for owner in object::owners(&old.value) {
                if let Some(set) = self.by_owner.get_mut(owner.uid) {
                    set.remove(key);
                    if set.is_empty() {
                        self.by_owner.remove(owner.uid);
                    }
                }
            }
        }
        if let Some(new) = new {
            self.by_uid.insert(object::uid(&new.value).to_owned(), key.clone());
            for owner in object::owners(&new.value) {
                self.by_owner.entry(owner.uid.to_owned()).or_default().insert(key.clone());
            }
        }
    }

    fn rows(&mut self, table: &Table) -> &mut Rows {
        let start = self.start;
        self.tables
            .entry(table.clone())
            .or_insert_with(|| Rows { history: history::History::starting_at(start), ..Rows::default() })
    }
}

type Observer = Box<dyn Fn(&Change) + Send + Sync>;

/// The store: shared, cheap to clone by `Arc` around it.
pub struct Store {
    state: Mutex<State>,
    /// Called under the lock for each change; it must only take notes.
    observer: OnceLock<Observer>,
}

impl Store {
    /// A store that forgets everything when dropped.
    pub fn in_memory(limits: Limits) -> Self {
        Self { state: Mutex::new(State { limits, ..State::default() }), observer: OnceLock::new() }
    }

    /// A store in `directory`, which is made when missing and locked against other processes.
    pub fn open(directory: &Path, limits: Limits) -> Result<Self, OpenError> {
        let mut state = State { limits, ..State::default() };
        let log = log::Log::open(directory, limits.compact_from, |rv, key, value| {
            state.rv = state.rv.max(rv);
            let slot = (key.namespace.clone(), key.name.clone());
            match value {
                Some(value) => {
                    state.rows(&key.table).objects.insert(slot, Arc::new(Stored::new(value, rv)));
                }
                None => {
                    state.rows(&key.table).objects.remove(&slot);
                }
            }
        })?;
        state.start = state.rv;
        let loaded: Vec<(Key, Arc<Stored>)> = state
            .tables
            .iter()
            .flat_map(|(table, rows)| {
                rows.objects.iter().map(|((ns, name), v)| {
                    (Key { table: table.clone(), namespace: ns.clone(), name: name.clone() }, v.clone())
                })
            })
            .collect();
        for (key, stored) in &loaded {
            state.index(key, None, Some(stored));
        }
        for rows in state.tables.values_mut() {
            rows.history = history::History::starting_at(state.start);
        }
        state.log = Some(log);
        Ok(Self { state: Mutex::new(state), observer: OnceLock::new() })
    }

    /// Sets what is told of each change. The first call wins.
    pub fn observe(&self, observer: impl Fn(&Change) + Send + Sync + 'static) {
        let _ = self.observer.set(Box::new(observer));
    }

    /// The objects as they are now. Hold it briefly.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// One object.
    pub fn get(&self, key: &Key) -> Option<Arc<Stored>> {
        self.state.lock().get(key)
    }

    /// Applies one write if `expect` and `check` hold; the change is in the log before anyone sees it.
    pub fn write(
        &self,
        key: &Key,
        expect: Expect,
        write: Write,
        check: impl FnOnce(&State) -> Result<(), ApiError>,
    ) -> Result<Arc<Stored>, WriteError> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let old = state.get(key);
        match (expect, &old) {
            (Expect::Absent, None) => {}
            (Expect::Version(rv), Some(stored)) if stored.rv == rv => {}
            _ => return Err(WriteError::Stale),
        }
        check(state).map_err(WriteError::Refused)?;
        let rv = state.rv + 1;
        let (mut value, removed) = match write {
            Write::Put(value) => (value, false),
            Write::Remove(value) => (value, true),
        };
        object::meta_mut(&mut value).insert("resourceVersion".into(), rv.to_string().into());
        let new = Arc::new(Stored::new(value, rv));
        if let Some(log) = &mut state.log {
            log.append(rv, key, (!removed).then(|| new.json().as_ref())).map_err(WriteError::Io)?;
            if log.wants_compaction() {
                let live = state
                    .tables
                    .iter()
                    .flat_map(|(table, rows)| {
                        rows.objects.iter().map(|((ns, name), v)| {
                            (Key { table: table.clone(), namespace: ns.clone(), name: name.clone() }, v.clone())
                        })
                    })
                    .filter(|(k, _)| k != key)
                    .chain((!removed).then(|| (key.clone(), new.clone())))
                    .collect();
                log.compact(rv, live);
            }
        }
        state.rv = rv;
        state.index(key, old.as_deref(), (!removed).then_some(&*new));
        let limits = state.limits;
        let rows = state.rows(&key.table);
        let slot = (key.namespace.clone(), key.name.clone());
        rows.labels.change(&slot, old.as_ref(), (!removed).then_some(&new));
        if removed {
            rows.objects.remove(&slot);
        } else {
            rows.objects.insert(slot, new.clone());
        }
        let change = Arc::new(Change::new(key.clone(), rv, old, new.clone(), removed));
        rows.history.push(&change, &limits);
        rows.watchers.publish(&change, limits.queue_bytes);
        if let Some(observer) = self.observer.get() {
            observer(&change);
        }
        Ok(new)
    }

    /// Starts a watch. With `since`, what happened after that version comes first; without it, nothing of the past.
    /// The second part is the version up to which the watcher is told everything by the feed's start.
    pub fn watch(&self, table: &Table, scope: Scope, since: Option<u64>) -> Result<(Feed, u64), ApiError> {
        let mut state = self.state.lock();
        let (now, queue) = (state.rv, state.limits.queue);
        let rows = state.rows(table);
        let mut backlog = history::Backlog::nothing();
        if let Some(since) = since {
            let floor = rows.history.floor();
            if since < floor {
                return Err(ApiError::expired(format!("too old resource version: {since} ({floor})")));
            }
            backlog = rows.history.after(since, &scope);
        }
        let mut feed = rows.watchers.subscribe(scope, queue);
        drop(state);
        feed.begin_with(backlog.decode());
        Ok((feed, now))
    }

    /// The objects of a table and a watch that starts exactly after them.
    pub fn snapshot_and_watch(&self, table: &Table, scope: Scope) -> (Vec<Arc<Stored>>, Feed, u64) {
        let mut state = self.state.lock();
        let (now, queue) = (state.rv, state.limits.queue);
        let namespace = scope.namespace();
        let objects = state.scan(table, namespace.as_deref()).cloned().collect();
        let feed = state.rows(table).watchers.subscribe(scope, queue);
        (objects, feed, now)
    }

    /// Ends the watches of a table, for a resource that is served no more.
    pub fn end_watches(&self, table: &Table) {
        self.state.lock().rows(table).watchers.end();
    }

    /// The newest version, provided that the feed has nothing waiting; for bookmarks.
    pub fn version_if_drained(&self, feed: &Feed) -> Option<u64> {
        let state = self.state.lock();
        feed.is_drained().then_some(state.rv)
    }

    /// Writes what the system still holds in memory to the disk.
    pub fn sync(&self) -> std::io::Result<()> {
        let file = match &self.state.lock().log {
            Some(log) => log.handle(),
            None => return Ok(()),
        };
        file.sync_data()
    }
}
