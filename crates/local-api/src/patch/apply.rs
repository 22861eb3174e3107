//! Server-side apply: the caller says what it wants and becomes the owner of that; what it wanted before and wants no
//! more goes, unless somebody else owns it too.

use serde_json::Value;

use super::fieldset::{self, FieldSet};
use super::managed::{self, Manager, Source};
use crate::core::Core;
use crate::error::{ApiError, Result};
use crate::object;
use crate::verbs::{Answer, Outcome, Target, WriteOptions, create, decode, update};

/// Applies a configuration.
pub(crate) fn apply(core: &Core, target: &Target, body: &[u8], options: &WriteOptions) -> Answer {
    let mut config = decode::parse(body, "application/apply-patch+yaml")?;
    if object::meta(&config).get("managedFields").and_then(Value::as_array).is_some_and(|l| !l.is_empty()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let name = object::name(&config);
    if !name.is_empty() && name != target.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            target.name
        )));
    }
    let warnings = decode::admit(&mut config, target, options)?;
    let meta = object::meta_mut(&mut config);
    meta.insert("name".into(), target.name.clone().into());
    if target.resource.namespaced {
        let given = meta.get("namespace").and_then(Value::as_str).unwrap_or(&target.namespace);
        if given != target.namespace {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        meta.insert("namespace".into(), target.namespace.clone().into());
    }
    let (root, defs) = managed::schema_of(target);
    let mut wanted = fieldset::of(&config, Some(&root), &defs);
    managed::strip(&mut wanted, target);
    let source = Source::Apply(&wanted);
    loop {
        if core.store.get(&target.key()).is_none() {
            if target.subresource.is_some() || !object::meta_str(&config, "resourceVersion").is_empty() {
                return Err(target.not_found());
            }
            match create::insert(core, target, config.clone(), options, source) {
                Ok(object) => return Ok(Outcome { object, created: true, warnings }),
                Err(error) if error.reason == "AlreadyExists" => continue,
                Err(error) => return Err(error),
            }
        }
        let result =
            update::modify(core, target, options, &source, |live| merged(target, live, &config, &wanted, options));
        match result {
            Ok(object) => return Ok(Outcome { object, created: false, warnings }),
            // Deleted in between: an apply creates.
            Err(error)
                if error.code == 404
                    && target.subresource.is_none()
                    && object::meta_str(&config, "resourceVersion").is_empty() => {}
            Err(error) => return Err(error),
        }
    }
}

/// The live object with the configuration laid over it.
fn merged(target: &Target, live: &Value, config: &Value, wanted: &FieldSet, options: &WriteOptions) -> Result<Value> {
    let (root, defs) = managed::schema_of(target);
    let api_version = target.resource.api_version();
    let subresource = target.subresource.clone().unwrap_or_default();
    let mine = |m: &Manager| {
        m.name == options.manager
            && m.operation == "Apply"
            && m.subresource == subresource
            && m.api_version == api_version
    };
    let managers = managed::owners(live);
    let mut new = live.clone();
    fieldset::merge(&mut new, config, Some(&root), &defs);
    if object::meta_str(config, "resourceVersion").is_empty() {
        object::meta_mut(&mut new).insert("resourceVersion".into(), object::meta_str(live, "resourceVersion").into());
    }
    let (mut changed, _) = fieldset::diff(Some(live), Some(&new), Some(&root), &defs);
    managed::strip(&mut changed, target);
    if !options.force {
        let conflicts: Vec<(Manager, FieldSet)> = managers
            .iter()
            .filter(|m| !mine(m))
            .filter_map(|m| {
                let both = m.fields.common(&changed);
                (!both.is_empty()).then(|| (m.clone(), both))
            })
            .collect();
        if !conflicts.is_empty() {
            return Err(managed::conflict(&conflicts));
        }
    }
    if let Some(before) = managers.iter().find(|m| mine(m)) {
        let mut gone = before.fields.clone();
        gone.subtract(wanted);
        let mut kept = wanted.clone();
        for other in managers.iter().filter(|m| !mine(m)) {
            kept.add(&other.fields);
        }
        fieldset::remove(&mut new, &gone, &kept, Some(&root), &defs);
    }
    Ok(new)
}
