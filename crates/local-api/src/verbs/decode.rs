//! From a request's body to an object that the schema's types admit.

use serde_json::Value;

use super::{FieldValidation, Target, WriteOptions};
use crate::error::{ApiError, Cause, Result};
use crate::kinds::{Builtin, Resource};
use crate::object;
use crate::schema;

/// Reads JSON, or YAML where the content type says so. Duplicate keys in JSON: the last one wins, as in Go.
pub(crate) fn parse(body: &[u8], content_type: &str) -> Result<Value> {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    match kind {
        "" | "application/json" | "*/*" => serde_json::from_slice(body)
            .map_err(|e| ApiError::bad_request(format!("the body of the request is not JSON: {e}"))),
        "application/yaml" | "application/apply-patch+yaml" => {
            // Every JSON text is YAML too, and JSON is what most clients send.
            if let Ok(value) = serde_json::from_slice(body) {
                return Ok(value);
            }
            let text =
                std::str::from_utf8(body).map_err(|e| ApiError::bad_request(format!("the body is not UTF-8: {e}")))?;
            serde_saphyr::from_str(text).map_err(|e| ApiError::bad_request(format!("error decoding YAML: {e}")))
        }
        "application/vnd.kubernetes.protobuf" => crate::protobuf::parse(body),
        other => Err(ApiError::unsupported_media_type(format!(
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml (got {other})"
        ))),
    }
}

/// Checks that `value` is what `target` takes, and brings it into the form in which it is stored.
/// Returns warnings.
pub(crate) fn admit(value: &mut Value, target: &Target, options: &WriteOptions) -> Result<Vec<String>> {
    let resource = &target.resource;
    if value.is_null() && !resource.is_custom() {
        *value = Value::Object(object::Object::new());
    }
    let Value::Object(map) = value else {
        return Err(ApiError::bad_request("the body of the request must be an object"));
    };
    let want = resource.api_version();
    for (field, want) in [("apiVersion", want.as_str()), ("kind", resource.kind.as_str())] {
        match map.get(field) {
            Some(Value::String(given)) if given == want => {}
            // Kubernetes: a body that does not name its type is taken as the endpoint's, except custom resources.
            None | Some(Value::Null) if !resource.is_custom() => {}
            Some(Value::String(given)) if given.is_empty() && !resource.is_custom() => {}
            Some(Value::String(given)) if field == "apiVersion" => {
                return Err(ApiError::bad_request(format!(
                    "the API version in the data ({given}) does not match the expected API version ({want})"
                )));
            }
            Some(Value::String(given)) if resource.is_custom() => {
                let name = map.get("metadata").and_then(|m| m.get("name")?.as_str()).unwrap_or_default().to_owned();
                let cause = Cause::invalid("kind", &given.as_str().into(), format!("must be {}", resource.kind));
                return Err(ApiError::invalid(&resource.group, given, &name, vec![cause]));
            }
            Some(Value::String(given)) => {
                return Err(ApiError::bad_request(format!(
                    "{} in version {:?} cannot be handled as a {}: expected kind {want:?}, but got {given:?}",
                    given, resource.version, resource.kind
                )));
            }
            _ => {
                return Err(ApiError::bad_request(format!(
                    "Object '{}' is missing in the body",
                    if field == "kind" { "Kind" } else { field }
                )));
            }
        }
    }
    let mut head = object::Object::with_capacity(map.len() + 2);
    head.insert("apiVersion".into(), want.into());
    head.insert("kind".into(), resource.kind.clone().into());
    map.shift_remove("apiVersion");
    map.shift_remove("kind");
    head.insert(
        "metadata".into(),
        map.shift_remove("metadata").filter(|m| !m.is_null()).unwrap_or_else(|| Value::Object(object::Object::new())),
    );
    head.append(map);
    *map = head;

    let schema = &resource.schema;
    let meta_node = crate::crd::metadata_node();
    let meta_defs = crate::kinds::definitions();
    let fault = if resource.is_custom() {
        let meta = map.get("metadata").unwrap_or(&Value::Null);
        schema::first_type_fault(meta, &meta_node, &meta_defs).map(|mut fault| {
            fault.path = schema::join("metadata", &fault.path);
            fault
        })
    } else {
        schema::first_type_fault(value, &schema.root, &schema.defs)
    };
    if let Some(fault) = fault {
        return Err(ApiError::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: json: cannot unmarshal {} into Go struct field {} of type {}",
            resource.kind, resource.version, resource.kind, fault.found, fault.path, fault.wanted
        )));
    }
    if !resource.is_custom() {
        drop_nulls(value);
    }
    if resource.is(Builtin::Pod) && crate::pods::has_bad_quantity(value) {
        return Err(ApiError::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            resource.kind, resource.version, resource.kind
        )));
    }
    if let Some((time, why)) = bad_micro_time(value, resource) {
        return Err(ApiError::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: parsing time {time:?} as \"2006-01-02T15:04:05.000000Z07:00\": {why}",
            resource.kind, resource.version, resource.kind
        )));
    }
    if let Some(at) = bad_base64(value, resource) {
        return Err(ApiError::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: illegal base64 data at input byte {at}",
            resource.kind, resource.version, resource.kind
        )));
    }
    let mut unknown = Vec::new();
    if options.field_validation != FieldValidation::Ignore {
        unknown = schema::unknown_fields(value, &schema.root, &schema.defs);
        if resource.is_custom() {
            let meta = object::meta(value).clone();
            let inner = schema::unknown_fields(&Value::Object(meta), &meta_node, &meta_defs);
            unknown.extend(inner.into_iter().map(|path| schema::join("metadata", &path)));
        }
    }
    // Fields of the metadata come first, as everywhere in Kubernetes.
    if resource.is_custom() {
        unknown.sort();
    }
    unknown.sort_by_key(|path| !path.starts_with("metadata."));
    let faults: Vec<String> = options
        .duplicates
        .iter()
        .map(|path| format!("duplicate field {path:?}"))
        .chain(unknown.iter().map(|path| format!("unknown field {path:?}")))
        .collect();
    if options.field_validation == FieldValidation::Strict && !faults.is_empty() {
        let list = faults.join(", ");
        return Err(ApiError::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: strict decoding error: {list}",
            resource.kind, resource.version, resource.kind
        )));
    }
    schema::prune(value, &schema.root, &schema.defs);
    if resource.is_custom() {
        let mut meta = Value::Object(std::mem::take(object::meta_mut(value)));
        schema::prune(&mut meta, &meta_node, &meta_defs);
        drop_nulls(&mut meta);
        value["metadata"] = meta;
    }
    // Kubernetes: empty maps and lists of the metadata are not written out.
    object::meta_mut(value)
        .retain(|_, v| !matches!(v, Value::Object(m) if m.is_empty()) && !matches!(v, Value::Array(l) if l.is_empty()));
    crate::events::to_storage(value, resource);
    Ok(faults)
}

/// A time that is no time of microseconds where one is wanted, as Go reads them: with a fraction.
fn bad_micro_time(value: &Value, resource: &Resource) -> Option<(String, &'static str)> {
    let paths: &[&str] = match resource.builtin {
        Some(Builtin::Lease) => &["spec.acquireTime", "spec.renewTime"],
        Some(Builtin::Event) => &["eventTime", "series.lastObservedTime"],
        _ => return None,
    };
    paths.iter().map(|path| object::str_at(value, path)).filter(|text| !text.is_empty()).find_map(|text| {
        if text.parse::<jiff::Timestamp>().is_err() {
            return Some((text.to_owned(), "it is no time"));
        }
        (!text.contains('.')).then(|| (text.to_owned(), "it has no fraction of a second"))
    })
}

/// Where the bytes of a Secret or ConfigMap are not written in base64.
fn bad_base64(value: &Value, resource: &Resource) -> Option<usize> {
    use base64::Engine as _;
    let field = match resource.builtin {
        Some(Builtin::Secret) => "data",
        Some(Builtin::ConfigMap) => "binaryData",
        _ => return None,
    };
    let values = value.get(field).and_then(Value::as_object)?.values().filter_map(Value::as_str);
    values.into_iter().find_map(|text| match base64::engine::general_purpose::STANDARD.decode(text).err()? {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => Some(at),
        base64::DecodeError::InvalidLength(at) => Some(at),
        base64::DecodeError::InvalidPadding => Some(text.len()),
    })
}

/// `null` in a built-in kind is absence.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, child| !child.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
