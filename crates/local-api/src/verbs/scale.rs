//! `/scale` of custom resources: the numbers that autoscalers and `kubectl scale` look at, in a form of their own.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::patch::PatchKind;
use super::{Target, WriteOptions, get, update};
use crate::core::Core;
use crate::error::{ApiError, Cause, Result};
use crate::kinds::ScalePaths;
use crate::object;
use crate::patch::managed::Source;
use crate::store::Stored;

fn paths(target: &Target) -> Result<&ScalePaths> {
    target.resource.scale.as_ref().ok_or_else(|| target.not_found())
}

/// `GET /scale`
pub(crate) fn get(core: &Core, target: &Target) -> Result<Value> {
    Ok(scale_of(&get::get(core, target)?, paths(target)?))
}

fn scale_of(stored: &Arc<Stored>, paths: &ScalePaths) -> Value {
    let value = &stored.value;
    let meta: Map<String, Value> = ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"]
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), object::meta(value).get(key)?.clone())))
        .collect();
    let number = |path: &str| object::at(value, path).and_then(Value::as_i64).unwrap_or(0);
    let mut status = json!({"replicas": number(&paths.status)});
    if !paths.selector.is_empty() {
        status["selector"] = object::str_at(value, &paths.selector).into();
    }
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": meta,
        "spec": {"replicas": number(&paths.spec)}, "status": status,
    })
}

/// `PUT /scale`
pub(crate) fn put(core: &Core, target: &Target, sent: &Value, options: &WriteOptions) -> Result<Value> {
    change(core, target, options, |_| Ok(sent.clone()))
}

/// `PATCH /scale`
pub(crate) fn patch(
    core: &Core,
    target: &Target,
    kind: PatchKind,
    body: &[u8],
    options: &WriteOptions,
) -> Result<Value> {
    let unreadable = |e: serde_json::Error| ApiError::bad_request(format!("error decoding patch: {e}"));
    match kind {
        PatchKind::Json => {
            let operations: json_patch::Patch = serde_json::from_slice(body).map_err(unreadable)?;
            change(core, target, options, |mut scale| {
                json_patch::patch(&mut scale, &operations).map_err(|e| ApiError::new(422, "Invalid", e.to_string()))?;
                Ok(scale)
            })
        }
        _ => {
            let patch: Value = serde_json::from_slice(body).map_err(unreadable)?;
            change(core, target, options, |mut scale| {
                json_patch::merge(&mut scale, &patch);
                Ok(scale)
            })
        }
    }
}

fn change(
    core: &Core,
    target: &Target,
    options: &WriteOptions,
    edit: impl Fn(Value) -> Result<Value>,
) -> Result<Value> {
    let paths = paths(target)?;
    let stored = update::modify(core, target, options, &Source::Update, |old| {
        let scale = edit(scale_of(&Arc::new(Stored::unsaved(old.clone())), paths))?;
        let wanted = object::at(&scale, "spec.replicas").and_then(Value::as_i64).unwrap_or(0);
        let mut new = old.clone();
        set(&mut new, &paths.spec, wanted.into());
        // The version in the scale is that of the object; without one the newest is meant.
        let version = object::meta_str(&scale, "resourceVersion");
        if !version.is_empty() {
            object::meta_mut(&mut new).insert("resourceVersion".into(), version.into());
        }
        Ok(new)
    })?;
    Ok(scale_of(&stored, paths))
}

fn set(value: &mut Value, path: &str, to: Value) {
    match path.split_once('.') {
        Some((step, rest)) => {
            let mut child = Value::Object(std::mem::take(object::child_mut(value, step)));
            set(&mut child, rest, to);
            value[step] = child;
        }
        None => value[path] = to,
    }
}

/// What is wrong with the wanted replicas of an object that can be scaled.
pub(crate) fn check(paths: &ScalePaths, value: &Value) -> Vec<Cause> {
    [&paths.spec, &paths.status].into_iter().filter_map(|path| check_count(path, value)).collect()
}

fn check_count(path: &str, value: &Value) -> Option<Cause> {
    let field = format!(".{path}");
    let mut here = value;
    for step in path.split('.') {
        if here.is_null() {
            return None;
        }
        if !here.is_object() {
            let why = format!(
                "{field} accessor error: {} is of the type {}, expected map[string]interface{{}}",
                here.as_str().map_or_else(|| here.to_string(), Into::into),
                go_type(here)
            );
            return Some(Cause::invalid(field, &0.into(), why));
        }
        here = here.get(step).unwrap_or(&Value::Null);
    }
    if here.is_null() {
        return None;
    }
    let Some(number) = here.as_i64() else {
        let shown = here.as_str().map_or_else(|| here.to_string(), Into::into);
        let why = format!("{field} accessor error: {shown} is of the type {}, expected int64", go_type(here));
        return Some(Cause::invalid(field, &0.into(), why));
    };
    if number < 0 {
        return Some(Cause::invalid(field, here, "should be a non-negative integer"));
    }
    if number > i64::from(i32::MAX) {
        let why = format!("should be less than or equal to {}", i32::MAX);
        return Some(Cause::invalid(field, here, why));
    }
    None
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "string",
        Value::Number(_) => "float64",
        Value::Bool(_) => "bool",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
        Value::Null => "<nil>",
    }
}
