//! What the server does to an object between decoding and storing: identity, status, generation, defaults, rules.

use serde_json::Value;

use super::Target;
use crate::core::Core;
use crate::error::{ApiError, Cause, Result};
use crate::kinds::{Builtin, Resource};
use crate::object;
use crate::schema;

/// Fills in what a new object gets from the server.
pub(crate) fn for_create(core: &Core, target: &Target, value: &mut Value) -> Result<()> {
    let resource = &target.resource;
    if !object::meta_str(value, "resourceVersion").is_empty() {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    place(target, value)?;
    let generated = object::meta_str(value, "generateName").to_owned();
    if object::name(value).is_empty() && !generated.is_empty() {
        // Kubernetes cuts the prefix so that the name stays within 63 characters.
        let prefix: String = generated.chars().take(58).collect();
        let name = format!("{prefix}{}", core.ids.suffix());
        object::meta_mut(value).insert("name".into(), name.into());
    }
    let meta = object::meta_mut(value);
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        meta.shift_remove(field);
    }
    meta.insert("uid".into(), core.ids.uid().into());
    meta.insert("creationTimestamp".into(), core.now().into());
    if counts_generations(resource) {
        meta.insert("generation".into(), 1.into());
    } else {
        meta.shift_remove("generation");
    }
    if resource.has_status && !resource.is(Builtin::Node) {
        drop_key(value, "status");
    }
    defaults(value, resource);
    match resource.builtin {
        Some(Builtin::Pod) => crate::pods::prepare_create(value),
        Some(Builtin::Namespace) => crate::namespaces::prepare_create(value),
        Some(Builtin::Secret) => secret_data(value),
        Some(Builtin::Definition) => crate::crd::prepare_create(value),
        _ => {}
    }
    Ok(())
}

fn counts_generations(resource: &Resource) -> bool {
    resource.is_custom() || resource.counts_generations
}

fn drop_key(value: &mut Value, key: &str) {
    if let Value::Object(map) = value {
        map.shift_remove(key);
    }
}

/// Makes namespace and name agree with the path.
pub(crate) fn place(target: &Target, value: &mut Value) -> Result<()> {
    let namespaced = target.resource.namespaced;
    let given = object::namespace(value);
    if namespaced {
        if !given.is_empty() && given != target.namespace {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        let namespace = target.namespace.clone();
        object::meta_mut(value).insert("namespace".into(), namespace.into());
    } else {
        object::meta_mut(value).shift_remove("namespace");
    }
    let name = object::name(value);
    if !target.name.is_empty() && name != target.name {
        if !name.is_empty() {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                target.name
            )));
        }
        let name = target.name.clone();
        object::meta_mut(value).insert("name".into(), name.into());
    }
    Ok(())
}

/// Fills in the schema's defaults, and those that depend on other fields.
pub(crate) fn defaults(value: &mut Value, resource: &Resource) {
    schema::fill(value, &resource.schema.root, &resource.schema.defs);
    match resource.builtin {
        Some(Builtin::Pod) => crate::pods::defaults(value),
        Some(Builtin::Definition) => crate::crd::defaults(value),
        Some(Builtin::Event) => crate::events::fill(value),
        Some(Builtin::Service) => {
            let status = object::child_mut(value, "status");
            status.entry("loadBalancer").or_insert_with(|| serde_json::json!({}));
            let ports = value.get_mut("spec").and_then(|s| s.get_mut("ports")).and_then(Value::as_array_mut);
            for port in ports.into_iter().flatten().filter(|p| p.get("targetPort").is_none()) {
                port["targetPort"] = port.get("port").cloned().unwrap_or_default();
            }
        }
        _ => {}
    }
    // What the version of the request knows and that of storage does not is lost, as in kube-apiserver.
    if let Some(storage) = &resource.storage_schema {
        schema::prune(value, &storage.root, &storage.defs);
        schema::fill(value, &storage.root, &storage.defs);
    }
}

/// A new service is only stored: it gets what follows from what it says, and no address.
pub(crate) fn admit_service(service: &mut Value) {
    let Some(Value::Object(spec)) = service.get_mut("spec") else { return };
    if let Some(ip) = spec.get("clusterIP").filter(|ip| ip.as_str().is_some_and(|ip| !ip.is_empty())).cloned() {
        spec.entry("clusterIPs").or_insert_with(|| serde_json::json!([ip]));
        spec.entry("ipFamilies").or_insert_with(|| serde_json::json!(["IPv4"]));
        spec.entry("ipFamilyPolicy").or_insert_with(|| "SingleStack".into());
    }
}

/// What of the metadata no request changes.
fn keep_identity(old: &Value, meta: &mut object::Object) {
    let old = object::meta(old);
    for field in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        match old.get(field) {
            Some(value) => meta.insert(field.into(), value.clone()),
            None => meta.shift_remove(field),
        };
    }
}

/// An update that says nothing of a service's addresses keeps them.
fn keep_addresses(old: &Value, new: &mut Value) {
    let spec = object::child_mut(new, "spec");
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if let Some(kept) = old.get("spec").and_then(|s| s.get(field))
            && !spec.contains_key(field)
        {
            spec.insert(field.into(), kept.clone());
        }
    }
}

/// Brings an update into line with what is stored: what the path may not change stays as it was.
pub(crate) fn for_update(target: &Target, old: &Value, new: &mut Value) -> Result<()> {
    let resource = &target.resource;
    place(target, new)?;
    let uid = object::meta_str(new, "uid");
    if !uid.is_empty() && uid != object::uid(old) {
        return Err(target.conflict(&format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            object::uid(old)
        )));
    }
    // A binding places the pod and says so in its status; for the pod's own generation nothing has changed.
    let binds = target.subresource.as_deref() == Some("binding");
    if target.is_status() {
        // Only the status (and who manages it) is taken from the request, and of built-in kinds the metadata.
        let status = new.get("status").cloned();
        let mut meta = std::mem::take(object::meta_mut(new));
        *new = old.clone();
        match status {
            Some(status) => new["status"] = status,
            None => drop_key(new, "status"),
        }
        if resource.is_custom() {
            let managed = meta.shift_remove("managedFields");
            meta.clone_from(object::meta(old));
            meta.shift_remove("managedFields");
            meta.extend(managed.map(|m| ("managedFields".to_owned(), m)));
        } else {
            keep_identity(old, &mut meta);
        }
        new["metadata"] = Value::Object(meta);
    } else {
        if resource.has_status && !binds {
            match old.get("status") {
                Some(status) => new["status"] = status.clone(),
                None => drop_key(new, "status"),
            }
        }
        let meta = object::meta_mut(new);
        keep_identity(old, meta);
        meta.shift_remove("selfLink");
        if meta.contains_key("deletionTimestamp") {
            let added: Vec<&str> = object::finalizers(new).filter(|f| !object::has_finalizer(old, f)).collect();
            if !added.is_empty() {
                let shown = added.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", ");
                let detail = format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{shown}}}"
                );
                let cause = Cause::forbidden("metadata.finalizers", &detail);
                return Err(ApiError::invalid(&resource.group, &resource.kind, &target.name, vec![cause]));
            }
        }
        match resource.builtin {
            Some(Builtin::Secret) => secret_data(new),
            Some(Builtin::Service) => keep_addresses(old, new),
            Some(Builtin::Namespace) => {
                if target.subresource.as_deref() != Some("finalize") {
                    crate::namespaces::keep_finalizers(old, new);
                }
                crate::namespaces::label(new);
            }
            Some(Builtin::Definition) => crate::crd::prepare(new),
            _ => {}
        }
    }
    defaults(new, resource);
    if !target.is_status() && !binds && counts_generations(resource) && !same_spec(resource, old, new) {
        let generation = object::meta(old).get("generation").and_then(Value::as_i64).unwrap_or(0) + 1;
        object::meta_mut(new).insert("generation".into(), generation.into());
    }
    Ok(())
}

/// Whether everything but the metadata, and a status that has a path of its own, is the same.
fn same_spec(resource: &Resource, old: &Value, new: &Value) -> bool {
    let relevant = |value: &Value| -> Vec<(String, Value)> {
        let mut list: Vec<_> = value
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, _)| !matches!(key.as_str(), "metadata" | "apiVersion" | "kind"))
            // A status without a path of its own is a field like any other.
            .filter(|(key, _)| *key != "status" || !resource.has_status)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        list.sort_by(|a, b| a.0.cmp(&b.0));
        list
    };
    relevant(old) == relevant(new)
}

/// Moves `stringData` into `data`.
fn secret_data(value: &mut Value) {
    use base64::Engine as _;
    let Value::Object(map) = value else { return };
    let Some(Value::Object(texts)) = map.shift_remove("stringData") else { return };
    let data = object::child_mut(value, "data");
    for (key, text) in texts {
        let encoded = base64::engine::general_purpose::STANDARD.encode(text.as_str().unwrap_or_default());
        data.insert(key, encoded.into());
    }
}

/// Refuses what breaks a rule. `old` is what is stored, for an update.
pub(crate) fn check(target: &Target, old: Option<&Value>, new: &Value) -> Result<()> {
    let resource = &target.resource;
    let mut causes = Vec::new();
    if !target.is_status() {
        let label_names = matches!(resource.builtin, Some(Builtin::Namespace | Builtin::Service));
        let core = resource.group.is_empty();
        causes.extend(super::names::check_metadata(new, label_names, resource.namespaced, core));
    }
    match resource.builtin {
        None => custom_rules(resource, old, new, &mut causes),
        Some(Builtin::Event) => causes.extend(crate::events::check(target, old, new)),
        Some(Builtin::Lease) => causes.extend(super::data::lease_rules(new)),
        Some(Builtin::Pod) => causes.extend(crate::pods::check(target, old, new)),
        Some(Builtin::Definition) if !target.is_status() => causes.extend(crate::crd::check(old, new)),
        Some(Builtin::ConfigMap | Builtin::Secret) => causes.extend(super::data::rules(resource, old, new)),
        Some(Builtin::Service) => causes.extend(super::data::service_rules(new)),
        _ => {}
    }
    if causes.is_empty() {
        return Ok(());
    }
    // Both faces of events are checked as the older one.
    let group = if resource.is(Builtin::Event) { "" } else { resource.group.as_str() };
    Err(ApiError::invalid(group, &resource.kind, object::name(new), causes))
}

/// The schema of a definition, its scale, and its rules: those only where nothing is wrong that they build on.
fn custom_rules(resource: &Resource, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
    const BLOCKING: [&str; 5] = [
        "FieldValueRequired",
        "FieldValueNotSupported",
        "FieldValueTooLong",
        "FieldValueTooMany",
        "FieldValueTypeInvalid",
    ];
    let (root, defs) = (&resource.schema.root, &resource.schema.defs);
    causes.extend(schema::validate(new, root, defs));
    causes.extend(resource.scale.iter().flat_map(|scale| super::scale::check(scale, new)));
    if !schema::has_rules(root) {
        return;
    }
    if causes.iter().any(|c| BLOCKING.contains(&c.reason)) {
        let why = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
        causes.push(Cause::invalid("<nil>", &Value::Null, why));
    } else {
        causes.extend(schema::check_rules(new, old, root, defs));
    }
}
