//! Server-side apply: the caller says what it wants and becomes the owner of that; what it wanted before and wants no
//! more goes, unless somebody else owns it too.

use serde_json::Value;

use super::fieldset::{self, FieldSet};
use super::managed::{self, Manager, Source};
use crate::core::Core;
use crate::error::{ApiError, Cause, Result};
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
    let text = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if api_version.is_empty() || kind.is_empty() {
        return Err(ApiError::bad_request(format!("invalid object type: {api_version}/, Kind={kind}")));
    }
    untyped(target, &config)?;
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
            if target.subresource.is_some() {
                return Err(target.not_found());
            }
            let uid = object::meta_str(&config, "uid");
            if !uid.is_empty() {
                return Err(immutable_uid(target, uid));
            }
            let mut fresh = config.clone();
            object::meta_mut(&mut fresh).shift_remove("resourceVersion");
            match create::insert(core, target, fresh, options, source) {
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

fn immutable_uid(target: &Target, uid: &str) -> ApiError {
    let cause = Cause::invalid("metadata.uid", &uid.into(), "field is immutable");
    ApiError::invalid(&target.resource.group, &target.resource.kind, &target.name, vec![cause])
}

/// Refuses fields that no schema knows and items that are there twice: nobody could own them.
fn untyped(target: &Target, config: &Value) -> Result<()> {
    let (root, defs) = managed::schema_of(target);
    let unknown = crate::schema::unknown_fields(config, &root, &defs).into_iter().next();
    let fault = match unknown {
        Some(path) => Some(format!(".{path}: field not declared in schema")),
        None => fieldset::duplicate(config, Some(&root), &defs, ""),
    };
    let Some(fault) = fault else { return Ok(()) };
    let version = target.resource.api_version();
    let version = if target.resource.group.is_empty() { format!("/{version}") } else { version };
    Err(ApiError::bad_request(format!(
        "failed to create typed patch object ({}/{}; {version}, Kind={}): {fault}",
        object::namespace(config),
        target.name,
        target.resource.kind
    )))
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
    let uid = object::meta_str(config, "uid");
    if !uid.is_empty() && uid != object::uid(live) {
        return Err(immutable_uid(target, uid));
    }
    let managers = managed::owners_for_apply(live, target);
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
