//! `PUT`, and what every change of a stored object goes through.

use std::sync::Arc;

use serde_json::Value;

use super::{ATTEMPTS, Answer, Outcome, Target, WriteOptions, decode, lost_every_race, prepare};
use crate::core::Core;
use crate::error::{ApiError, Cause, Result};
use crate::kinds::Builtin;
use crate::object;
use crate::patch::managed::Source;
use crate::store::{Expect, Stored, Write, WriteError};

/// Replaces an object.
pub(crate) fn update(core: &Core, target: &Target, mut value: Value, options: &WriteOptions) -> Answer {
    let warnings = decode::admit(&mut value, target, options)?;
    let resource = &target.resource;
    if object::name(&value).is_empty() {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            target.name
        )));
    }
    let name = object::name(&value);
    if name != target.name {
        let url = &target.name;
        let why = format!("the name of the object ({name}) does not match the name on the URL ({url})");
        return Err(ApiError::bad_request(why));
    }
    if matches!(resource.builtin, Some(Builtin::Lease | Builtin::Service | Builtin::Event))
        && target.subresource.is_none()
        && core.store.get(&target.key()).is_none()
    {
        // Kubernetes makes these by an update too.
        let mut fresh = value.clone();
        object::meta_mut(&mut fresh).shift_remove("resourceVersion");
        let object = super::create::insert(core, target, fresh, options, Source::Update)?;
        return Ok(Outcome { object, created: true, warnings });
    }
    if object::meta_str(&value, "resourceVersion").is_empty()
        && (resource.is_custom() || matches!(resource.builtin, Some(Builtin::Definition | Builtin::Lease)))
    {
        core.store.get(&target.key()).ok_or_else(|| target.not_found())?;
        let cause = Cause {
            reason: "FieldValueInvalid",
            message: "Invalid value: 0: must be specified for an update".into(),
            field: "metadata.resourceVersion".into(),
        };
        // Kubernetes names the resource here where it names the kind elsewhere.
        return Err(ApiError::invalid(&resource.group, &resource.plural, &target.name, vec![cause]));
    }
    let object = modify(core, target, options, &Source::Update, |_| Ok(value.clone()))?;
    Ok(Outcome { object, created: false, warnings })
}

/// Changes a stored object by `change`, which is given the newest version and called again when somebody was faster.
/// A `resourceVersion` in what it returns must be the newest, else the answer is a conflict.
pub(crate) fn modify(
    core: &Core,
    target: &Target,
    options: &WriteOptions,
    source: &Source<'_>,
    mut change: impl FnMut(&Value) -> Result<Value>,
) -> Result<Arc<Stored>> {
    for _ in 0..ATTEMPTS {
        let old = core.store.get(&target.key()).ok_or_else(|| target.not_found())?;
        let mut new = change(&old.value)?;
        let wanted = object::meta_str(&new, "resourceVersion").to_owned();
        if !wanted.is_empty() && wanted != object::meta_str(&old.value, "resourceVersion") {
            return Err(target.modified());
        }
        prepare::for_update(target, &old.value, &mut new)?;
        prepare::check(target, Some(&old.value), &new)?;
        object::meta_mut(&mut new).insert("resourceVersion".into(), old.rv.to_string().into());
        crate::patch::managed::record(core, target, Some(&old.value), &mut new, options, source)?;
        let gone = is_deleted_by(&new);
        if !gone
            && object::same_but_managed_fields(&old.value, &new)
            && !crate::patch::managed::owners_changed(&old.value, &new)
        {
            return Ok(old);
        }
        if options.dry_run {
            return Ok(Arc::new(Stored::unsaved(new)));
        }
        let write = if gone { Write::Remove(new) } else { Write::Put(new) };
        match core.store.write(&target.key(), Expect::Version(old.rv), write, |_| Ok(())) {
            Ok(stored) => return Ok(stored),
            Err(WriteError::Stale) => {}
            Err(other) => return Err(other.into()),
        }
    }
    Err(lost_every_race(target))
}

/// Whether nothing holds a terminating object any longer.
pub(crate) fn is_deleted_by(value: &Value) -> bool {
    object::is_terminating(value)
        && object::finalizers(value).next().is_none()
        && object::meta(value).get("deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0) == 0
        && !(value.get("kind").is_some_and(|k| k == "Namespace")
            && object::at(value, "spec.finalizers").and_then(Value::as_array).is_some_and(|f| !f.is_empty()))
}
