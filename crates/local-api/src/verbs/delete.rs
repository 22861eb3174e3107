//! `DELETE` of one object or of a collection.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::update::is_deleted_by;
use super::{ATTEMPTS, Target, lost_every_race};
use crate::core::Core;
use crate::env::rfc3339;
use crate::error::{ApiError, Result};
use crate::kinds::Builtin;
use crate::object;
use crate::selector::Selector;
use crate::store::{Expect, Stored, Write, WriteError};

/// Holds an object until its dependents are gone.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// Holds an object until its dependents have forgotten it.
pub(crate) const ORPHAN: &str = "orphan";

/// What becomes of the dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// `metav1.DeleteOptions`.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) grace: Option<i64>,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) dry_run: bool,
}

impl DeleteOptions {
    /// Reads the body, over what the query said.
    pub(crate) fn read(mut self, body: &Value) -> Result<Self> {
        if let Some(kind) = body.get("kind").and_then(Value::as_str).filter(|k| !matches!(*k, "DeleteOptions" | "")) {
            return Err(ApiError::bad_request(format!("the options of a delete are DeleteOptions, not {kind}")));
        }
        if let Some(grace) = body.get("gracePeriodSeconds").filter(|g| !g.is_null()) {
            let grace = grace.as_i64();
            self.grace =
                Some(grace.ok_or_else(|| ApiError::bad_request("gracePeriodSeconds must be a number of seconds"))?);
        }
        if let Some(word) = body.get("propagationPolicy").and_then(Value::as_str) {
            if body.get("orphanDependents").is_some_and(|o| !o.is_null()) {
                let why = "orphanDependents and deletionPropagation cannot be both set";
                let cause = crate::error::Cause::invalid("propagationPolicy", &word.into(), why);
                return Err(ApiError::invalid("meta.k8s.io", "DeleteOptions", "", vec![cause]));
            }
            self.propagation = Some(propagation(word)?);
        } else if let Some(orphan) = body.get("orphanDependents").and_then(Value::as_bool) {
            self.propagation = Some(if orphan { Propagation::Orphan } else { Propagation::Background });
        }
        let precondition = |field: &str| body.get("preconditions")?.get(field)?.as_str().map(Into::into);
        self.uid = precondition("uid").or(self.uid);
        self.resource_version = precondition("resourceVersion").or(self.resource_version);
        self.dry_run |= body.get("dryRun").and_then(Value::as_array).is_some_and(|l| l.iter().any(|d| d == "All"));
        Ok(self)
    }
}

/// Reads a propagation policy.
pub(crate) fn propagation(word: &str) -> Result<Propagation> {
    match word {
        "Background" => Ok(Propagation::Background),
        "Foreground" => Ok(Propagation::Foreground),
        "Orphan" => Ok(Propagation::Orphan),
        other => {
            let supported = ["Foreground", "Background", "Orphan", "nil"].map(String::from);
            let cause = crate::error::Cause::unsupported("propagationPolicy", &other.into(), &supported);
            Err(ApiError::invalid("meta.k8s.io", "DeleteOptions", "", vec![cause]))
        }
    }
}

/// What a delete came to.
#[derive(Debug)]
pub(crate) struct Deleted {
    /// The object as it was last, or as it stands while something holds it.
    pub(crate) object: Arc<Stored>,
    /// It is gone.
    pub(crate) gone: bool,
}

/// Deletes one object, or marks it for deletion while a finalizer or a running pod holds it.
pub(crate) fn delete(core: &Core, target: &Target, options: &DeleteOptions) -> Result<Deleted> {
    let key = target.key();
    for _ in 0..ATTEMPTS {
        let old = core.store.get(&key).ok_or_else(|| target.not_found())?;
        preconditions(target, &old.value, options)?;
        let mut new = old.value.clone();
        mark(core, target, &mut new, options)?;
        let gone = is_deleted_by(&new);
        if !gone && new == old.value {
            return Ok(Deleted { object: old, gone });
        }
        // What goes at once goes as it was; only pods are told how they end.
        if gone && !target.resource.is(Builtin::Pod) && !object::is_terminating(&old.value) {
            new = old.value.clone();
        }
        if options.dry_run {
            return Ok(Deleted { object: Arc::new(Stored::unsaved(new)), gone });
        }
        let write = if gone { Write::Remove(new) } else { Write::Put(new) };
        match core.store.write(&key, Expect::Version(old.rv), write, |_| Ok(())) {
            Ok(object) => return Ok(Deleted { object, gone }),
            Err(WriteError::Stale) => {}
            Err(other) => return Err(other.into()),
        }
    }
    Err(lost_every_race(target))
}

fn preconditions(target: &Target, old: &Value, options: &DeleteOptions) -> Result<()> {
    // Kubernetes names the kind here where it names the resource elsewhere.
    let conflict = |why: &str| ApiError::conflict(&target.resource.group, &target.resource.kind, &target.name, why);
    let uid = object::uid(old);
    if let Some(wanted) = options.uid.as_deref().filter(|u| *u != uid) {
        return Err(conflict(&format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
        )));
    }
    let version = object::meta_str(old, "resourceVersion");
    if let Some(wanted) = options.resource_version.as_deref().filter(|v| *v != version) {
        return Err(conflict(&format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({version}). The object might have been modified"
        )));
    }
    Ok(())
}

/// Writes the wish to delete into the object.
fn mark(core: &Core, target: &Target, value: &mut Value, options: &DeleteOptions) -> Result<()> {
    let resource = &target.resource;
    if resource.is(Builtin::Namespace) {
        crate::namespaces::refuse_system(&target.name)?;
        object::child_mut(value, "status").insert("phase".into(), "Terminating".into());
    }
    if resource.is(Builtin::Definition) {
        object::add_finalizer(value, crate::crd::CLEANUP);
    }
    match options.propagation {
        Some(Propagation::Orphan) => {
            object::remove_finalizer(value, FOREGROUND);
            object::add_finalizer(value, ORPHAN);
        }
        Some(Propagation::Foreground) => {
            object::remove_finalizer(value, ORPHAN);
            object::add_finalizer(value, FOREGROUND);
        }
        Some(Propagation::Background) => {
            object::remove_finalizer(value, ORPHAN);
            object::remove_finalizer(value, FOREGROUND);
        }
        None => {}
    }
    let grace = if resource.is(Builtin::Pod) { crate::pods::grace(value, options.grace) } else { 0 };
    let now = core.clock.now();
    let current = object::meta(value).get("deletionGracePeriodSeconds").and_then(Value::as_i64);
    let terminating = object::is_terminating(value);
    let shortened = match current {
        None if terminating => return Ok(()),
        // Kubernetes: a second delete may only shorten the grace period, and only when it says so.
        Some(current) if terminating => {
            if options.grace.is_none() || grace >= current {
                return Ok(());
            }
            deadline(value, now, current, grace)
        }
        _ => now.saturating_add(SignedDuration::from_secs(grace)).unwrap_or(now),
    };
    let meta = object::meta_mut(value);
    meta.insert("deletionTimestamp".into(), rfc3339(shortened).into());
    // Namespaces and definitions end in steps of their own and have no such time.
    if !matches!(resource.builtin, Some(Builtin::Namespace | Builtin::Definition)) {
        meta.insert("deletionGracePeriodSeconds".into(), grace.into());
    }
    if let Some(generation) = meta.get("generation").and_then(Value::as_i64)
        && !terminating
        && !resource.is(Builtin::Definition)
    {
        meta.insert("generation".into(), (generation + 1).into());
    }
    Ok(())
}

/// The new deletion time when the grace is cut from `current` to `grace`: counted from the first delete, never in the past.
fn deadline(value: &Value, now: Timestamp, current: i64, grace: i64) -> Timestamp {
    let text = object::meta_str(value, "deletionTimestamp");
    let end: Timestamp = text.parse().unwrap_or(now);
    let asked = end.saturating_sub(SignedDuration::from_secs(current)).unwrap_or(now);
    let wanted = asked.saturating_add(SignedDuration::from_secs(grace)).unwrap_or(now);
    if grace == 0 { now } else { wanted.max(now) }
}

/// Deletes what a selector takes. Returns the objects.
pub(crate) fn delete_collection(
    core: &Core,
    target: &Target,
    selector: &Selector,
    options: &DeleteOptions,
) -> Result<(Vec<Arc<Stored>>, u64)> {
    let listed = super::list::list(core, target, selector, &super::list::ListOptions::default())?;
    for item in &listed.items {
        let one = Target::new(target.resource.clone(), object::namespace(&item.value), object::name(&item.value));
        match delete(core, &one, options) {
            Ok(_) => {}
            Err(error) if error.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    Ok((listed.items, listed.version))
}
