//! `POST`.

use std::sync::Arc;

use serde_json::Value;

use super::{ATTEMPTS, Answer, Outcome, Target, WriteOptions, decode, lost_every_race, prepare};
use crate::core::Core;
use crate::error::{ApiError, Result};
use crate::object;
use crate::store::{Expect, State, Stored, Write, WriteError};

/// Stores a new object.
pub(crate) fn create(core: &Core, target: &Target, mut value: Value, options: &WriteOptions) -> Answer {
    let warnings = decode::admit(&mut value, target, options)?;
    let object = insert(core, target, value, options, crate::patch::managed::Source::Update)?;
    Ok(Outcome { object, created: true, warnings })
}

/// Stores an object that has been decoded.
pub(crate) fn insert(
    core: &Core,
    target: &Target,
    value: Value,
    options: &WriteOptions,
    source: crate::patch::managed::Source<'_>,
) -> Result<Arc<Stored>> {
    let resource = &target.resource;
    let names_itself = object::name(&value).is_empty() && target.name.is_empty();
    for _ in 0..ATTEMPTS {
        let mut value = value.clone();
        prepare::for_create(core, target, &mut value)?;
        namespace_is_open(&core.store.state(), target, &value)?;
        crate::patch::managed::record(core, target, None, &mut value, options, &source)?;
        // What admission adds is owned by nobody.
        if resource.is(crate::kinds::Builtin::Pod) {
            crate::pods::admit(core, target, &mut value)?;
        }
        if resource.is(crate::kinds::Builtin::Service) {
            prepare::admit_service(&mut value);
        }
        prepare::check(target, None, &value)?;
        let mut key = target.key();
        key.name = object::name(&value).into();
        if options.dry_run {
            if core.store.get(&key).is_some() {
                return Err(ApiError::already_exists(&resource.group, &resource.plural, &key.name));
            }
            return Ok(Arc::new(Stored::unsaved(value)));
        }
        let named = value.clone();
        let check = |state: &State| namespace_is_open(state, target, &named);
        match core.store.write(&key, Expect::Absent, Write::Put(value), check) {
            Ok(stored) => return Ok(stored),
            // A generated name may collide; another one will not.
            Err(WriteError::Stale) if names_itself => {}
            Err(WriteError::Stale) => {
                return Err(ApiError::already_exists(&resource.group, &resource.plural, &key.name));
            }
            Err(other) => return Err(other.into()),
        }
    }
    Err(lost_every_race(target))
}

/// The namespace exists and is not being deleted.
fn namespace_is_open(state: &State, target: &Target, value: &Value) -> Result<()> {
    if !target.resource.namespaced {
        return Ok(());
    }
    let namespace = &target.namespace;
    let Some(stored) = state.get(&crate::namespaces::key(namespace)) else {
        return Err(ApiError::not_found("", "namespaces", namespace));
    };
    if object::is_terminating(&stored.value) {
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let mut error = ApiError::forbidden(&target.resource.group, &target.resource.plural, object::name(value), &why);
        error.details.causes.push(crate::error::Cause {
            reason: "NamespaceTerminating",
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".into(),
        });
        return Err(error);
    }
    Ok(())
}
