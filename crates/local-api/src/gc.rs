//! What happens by itself: owners and dependents, namespaces that end, definitions that come and go.
//!
//! The store's observer only notes what there is to do; the notes are worked off by one task at a time.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use crate::core::Core;
use crate::object;
use crate::store::{Change, Key};
use crate::verbs::delete::{DeleteOptions, FOREGROUND, ORPHAN, Propagation};
use crate::verbs::update::modify;
use crate::verbs::{Target, WriteOptions, delete};

/// One thing to look at. Looking twice does no harm.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Job {
    /// The owners of this object may be gone.
    Dependent(Key),
    /// The object with this UID is gone, or its dependents hold it.
    Owner(String),
    /// A namespace may be empty.
    Namespace(String),
    /// A new namespace needs its account.
    Account(String),
    /// A definition was written.
    Definition(String),
    /// The objects of a definition that is being deleted.
    Cleanup(String),
    /// Old events.
    Events,
}

/// The notes. Each stands there once, so their number is bounded by that of the objects.
#[derive(Default)]
pub(crate) struct Jobs(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    queue: VecDeque<Job>,
    queued: HashSet<Job>,
    running: bool,
}

impl Jobs {
    pub(crate) fn add(&self, job: Job) {
        let mut inner = self.0.lock();
        if inner.queued.insert(job.clone()) {
            inner.queue.push_back(job);
        }
    }

    fn next(&self) -> Option<Job> {
        let mut inner = self.0.lock();
        let job = inner.queue.pop_front();
        match &job {
            Some(job) => {
                inner.queued.remove(job);
            }
            None => inner.running = false,
        }
        job
    }

    /// Whether the caller shall work now: there is something, and nobody is at it.
    fn begin(&self) -> bool {
        let mut inner = self.0.lock();
        if inner.running || inner.queue.is_empty() {
            return false;
        }
        inner.running = true;
        true
    }

    /// Called under the store's lock for every change.
    pub(crate) fn note(&self, change: &Change) {
        let value = &change.new.value;
        let terminating = object::is_terminating(value);
        match &*change.key.table {
            "namespaces" if !change.removed => {
                let name = change.key.name.to_string();
                if change.old.is_none() {
                    self.add(Job::Account(name));
                } else if terminating {
                    self.add(Job::Namespace(name));
                }
            }
            crate::crd::TABLE => {
                self.add(Job::Definition(change.key.name.to_string()));
                if terminating {
                    self.add(Job::Cleanup(change.key.name.to_string()));
                }
            }
            crate::events::TABLE if change.old.is_none() => self.add(Job::Events),
            _ => {}
        }
        if change.removed {
            self.add(Job::Owner(object::uid(value).to_owned()));
            if !change.key.namespace.is_empty() {
                self.add(Job::Namespace(change.key.namespace.to_string()));
            }
            if let Some((_, group)) = change.key.table.split_once('.')
                && !group.is_empty()
            {
                self.add(Job::Cleanup(change.key.table.to_string()));
            }
            // An owner may wait for this one.
            for owner in object::owners(value) {
                self.add(Job::Owner(owner.uid.to_owned()));
            }
            return;
        }
        if terminating && (object::has_finalizer(value, FOREGROUND) || object::has_finalizer(value, ORPHAN)) {
            self.add(Job::Owner(object::uid(value).to_owned()));
        }
        let before = change.old.as_ref().map(|o| object::meta(&o.value).get("ownerReferences"));
        let after = object::meta(value).get("ownerReferences");
        if after.is_some() && before != Some(after) {
            self.add(Job::Dependent(change.key.clone()));
        }
        if let Some(old) = &change.old {
            for owner in object::owners(&old.value) {
                if !object::owners(value).any(|o| o.uid == owner.uid && o.blocks == owner.blocks) {
                    self.add(Job::Owner(owner.uid.to_owned()));
                }
            }
        }
    }
}

/// After a restart: whatever was under way is looked at again.
pub(crate) fn resume(core: &Core) {
    let state = core.store.state();
    for table in state.tables() {
        for stored in state.scan(table, None) {
            let value = &stored.value;
            let (ns, name) = (object::namespace(value), object::name(value));
            if object::owners(value).next().is_some() {
                core.jobs.add(Job::Dependent(Key::new(table, ns, name)));
            }
            if object::is_terminating(value) {
                core.jobs.add(Job::Owner(object::uid(value).to_owned()));
                match &**table {
                    "namespaces" => core.jobs.add(Job::Namespace(name.to_owned())),
                    crate::crd::TABLE => core.jobs.add(Job::Cleanup(name.to_owned())),
                    _ => {}
                }
            }
        }
    }
}

/// Works off the notes in a task of its own, unless one is at it already. Must be called inside a runtime.
pub(crate) fn kick(core: &Arc<Core>) {
    if !core.jobs.begin() {
        return;
    }
    let core = core.clone();
    tokio::spawn(async move {
        while let Some(job) = core.jobs.next() {
            run(&core, job);
            // Requests go first.
            tokio::task::yield_now().await;
        }
    });
}

fn run(core: &Core, job: Job) {
    match job {
        Job::Dependent(key) => dependent(core, &key),
        Job::Owner(uid) => owner(core, &uid),
        Job::Namespace(name) => crate::namespaces::empty(core, &name),
        Job::Account(name) => crate::namespaces::account(core, &name),
        Job::Definition(name) => crate::crd::settle(core, &name),
        Job::Cleanup(name) => crate::crd::cleanup(core, &name),
        Job::Events => crate::events::expire(core),
    }
}

/// The owner is gone: its dependents are looked at. It waits for them: perhaps no longer.
fn owner(core: &Core, uid: &str) {
    let (owner, dependents) = {
        let state = core.store.state();
        let owner = state.by_uid(uid).cloned().and_then(|key| state.get(&key).map(|o| (key, o)));
        (owner, state.dependents(uid).cloned().collect::<Vec<_>>())
    };
    let Some((key, stored)) = owner else {
        for key in dependents {
            core.jobs.add(Job::Dependent(key));
        }
        return;
    };
    if !object::is_terminating(&stored.value) {
        return;
    }
    if object::has_finalizer(&stored.value, ORPHAN) {
        for dependent in &dependents {
            drop_owners(core, dependent, |owner| owner.uid != uid);
        }
        drop_finalizer(core, &key, ORPHAN);
    } else if object::has_finalizer(&stored.value, FOREGROUND) {
        let blocking = dependents.iter().any(|dependent| {
            core.store
                .get(dependent)
                .is_some_and(|o| object::owners(&o.value).any(|owner| owner.uid == uid && owner.blocks))
        });
        if !blocking {
            drop_finalizer(core, &key, FOREGROUND);
        }
        for dependent in dependents {
            core.jobs.add(Job::Dependent(dependent));
        }
    }
}

/// Deletes an object none of whose owners is left, or forgets those that are gone.
fn dependent(core: &Core, key: &Key) {
    let Some(stored) = core.store.get(key) else { return };
    let (mut solid, mut waiting, mut absent) = (0, 0, 0);
    {
        let state = core.store.state();
        for owner in object::owners(&stored.value) {
            match find(&state, owner.uid, &key.namespace) {
                None => absent += 1,
                Some(found) if object::is_terminating(&found) && object::has_finalizer(&found, FOREGROUND) => {
                    waiting += 1;
                }
                Some(_) => solid += 1,
            }
        }
    }
    if absent + waiting == 0 {
        return;
    }
    if solid > 0 {
        let state = core.store.state();
        let keep: HashSet<String> = object::owners(&stored.value)
            .filter(|o| {
                find(&state, o.uid, &key.namespace)
                    .is_some_and(|v| !(object::is_terminating(&v) && object::has_finalizer(&v, FOREGROUND)))
            })
            .map(|o| o.uid.to_owned())
            .collect();
        drop(state);
        drop_owners(core, key, |owner| keep.contains(owner.uid));
        return;
    }
    if object::is_terminating(&stored.value) {
        return;
    }
    let Some(target) = target_of(core, key) else { return };
    // In a foreground deletion the dependents' own dependents go first as well.
    let propagation = if waiting > 0 || object::has_finalizer(&stored.value, FOREGROUND) {
        Propagation::Foreground
    } else if object::has_finalizer(&stored.value, ORPHAN) {
        Propagation::Orphan
    } else {
        Propagation::Background
    };
    let options = DeleteOptions {
        propagation: Some(propagation),
        uid: Some(object::uid(&stored.value).to_owned()),
        ..DeleteOptions::default()
    };
    if let Err(error) = delete::delete(core, &target, &options)
        && !matches!(error.code, 404 | 409)
    {
        tracing::warn!(%error, ?key, "cannot delete an object whose owners are gone");
    }
}

/// The owner with this UID, if it may own something in `namespace`: it is there too, or cluster-wide.
fn find(state: &crate::store::State, uid: &str, namespace: &str) -> Option<Value> {
    let key = state.by_uid(uid)?;
    let reachable = key.namespace.is_empty() || *key.namespace == *namespace;
    reachable.then(|| state.get(key).map(|o| o.value.clone())).flatten()
}

fn target_of(core: &Core, key: &Key) -> Option<Target> {
    Some(Target::new(core.registry.by_table(&key.table)?, &key.namespace, &key.name))
}

fn system() -> WriteOptions {
    WriteOptions { manager: "osb".into(), ..WriteOptions::default() }
}

fn drop_owners(core: &Core, key: &Key, keep: impl Fn(&object::Owner<'_>) -> bool) {
    let Some(target) = target_of(core, key) else { return };
    let result = modify(core, &target, &system(), &crate::patch::managed::Source::Update, |old| {
        let kept: HashSet<&str> = object::owners(old).filter(|o| keep(o)).map(|o| o.uid).collect();
        let mut new = old.clone();
        let meta = object::meta_mut(&mut new);
        if let Some(Value::Array(list)) = meta.get_mut("ownerReferences") {
            list.retain(|r| r.get("uid").and_then(Value::as_str).is_some_and(|uid| kept.contains(uid)));
            if list.is_empty() {
                meta.shift_remove("ownerReferences");
            }
        }
        Ok(new)
    });
    report(result.err(), key);
}

fn drop_finalizer(core: &Core, key: &Key, finalizer: &str) {
    let Some(target) = target_of(core, key) else { return };
    let result = modify(core, &target, &system(), &crate::patch::managed::Source::Update, |old| {
        let mut new = old.clone();
        object::remove_finalizer(&mut new, finalizer);
        Ok(new)
    });
    report(result.err(), key);
}

fn report(error: Option<crate::error::ApiError>, key: &Key) {
    if let Some(error) = error.filter(|e| e.code != 404) {
        tracing::warn!(%error, ?key, "cannot tend to an object's owners");
    }
}

/// Works off the notes here and now, up to those that others are at.
pub(crate) fn drain(core: &Core) {
    if !core.jobs.begin() {
        return;
    }
    while let Some(job) = core.jobs.next() {
        run(core, job);
    }
}
