//! Namespaces: those that always exist, and how one is emptied before it goes.

use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};

use crate::core::Core;
use crate::error::{ApiError, Result};
use crate::kinds::Resource;
use crate::object;
use crate::patch::managed::Source;
use crate::store::{Expect, Key, Table, Write};
use crate::verbs::delete::{DeleteOptions, Propagation};
use crate::verbs::{Target, WriteOptions, create, delete};

const ALWAYS: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

static TABLE: LazyLock<Table> = LazyLock::new(|| "namespaces".into());

/// The key of a namespace.
pub(crate) fn key(name: &str) -> Key {
    Key::new(&TABLE, "", name)
}

/// Makes what every cluster has.
pub(crate) fn seed(core: &Core) {
    for name in ALWAYS {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        make(core, "namespaces", "", object);
        account(core, name);
    }
}

/// Makes a namespace's default service account.
pub(crate) fn account(core: &Core, namespace: &str) {
    let object =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": namespace}});
    make(core, "serviceaccounts", namespace, object);
}

fn make(core: &Core, plural: &str, namespace: &str, object: Value) {
    let Some(resource) = core.registry.get("", "v1", plural) else { return };
    let target = Target::new(resource, namespace, "");
    let options = WriteOptions { manager: "osb".into(), ..WriteOptions::default() };
    match create::insert(core, &target, object, &options, Source::Update) {
        Ok(_) => {}
        Err(error) if error.reason == "AlreadyExists" => {}
        Err(error) => tracing::warn!(%error, plural, namespace, "cannot make what every namespace has"),
    }
}

/// What a new namespace gets.
pub(crate) fn prepare_create(value: &mut Value) {
    let given = object::at(value, "spec.finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut finalizers: Vec<Value> = given.into_iter().filter(|f| f != "kubernetes").collect();
    finalizers.push("kubernetes".into());
    value["spec"] = json!({"finalizers": finalizers});
    value["status"] = json!({"phase": "Active"});
    label(value);
}

/// Every namespace carries its name as a label.
pub(crate) fn label(value: &mut Value) {
    let name = object::name(value).to_owned();
    let labels = object::meta_mut(value).entry("labels").or_insert_with(|| json!({}));
    labels["kubernetes.io/metadata.name"] = name.into();
}

/// An ordinary update does not touch the finalizers of the spec.
pub(crate) fn keep_finalizers(old: &Value, new: &mut Value) {
    let finalizers = object::at(old, "spec.finalizers").cloned();
    let spec = object::child_mut(new, "spec");
    match finalizers {
        Some(list) => spec.insert("finalizers".into(), list),
        None => spec.shift_remove("finalizers"),
    };
}

/// Kubernetes never lets go of the namespaces that it needs itself.
pub(crate) fn refuse_system(name: &str) -> Result<()> {
    if ["default", "kube-public", "kube-system"].contains(&name) {
        return Err(ApiError::forbidden("", "namespaces", name, "this namespace may not be deleted"));
    }
    Ok(())
}

/// Deletes everything in a terminating namespace; when nothing is left, the namespace.
pub(crate) fn empty(core: &Core, name: &str) {
    let Some(stored) = core.store.get(&key(name)) else { return };
    if !object::is_terminating(&stored.value) {
        return;
    }
    let contents = contents(core, name);
    let background = DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
    for (resource, namespace, object_name, terminating) in &contents {
        if *terminating {
            continue;
        }
        let target = Target::new(resource.clone(), namespace, object_name);
        if let Err(error) = delete::delete(core, &target, &background)
            && error.code != 404
        {
            tracing::warn!(%error, namespace = name, "cannot delete what a terminating namespace holds");
        }
    }
    let mut last = stored.value.clone();
    if let Some(Value::Array(list)) = last.get_mut("spec").and_then(|s| s.get_mut("finalizers")) {
        list.retain(|f| f != "kubernetes");
    }
    let gone = crate::verbs::update::is_deleted_by(&last);
    // Others hold it. Writing it as it stands would only bring us here again, without end.
    if !gone && last == stored.value {
        return;
    }
    let write = if gone { Write::Remove(last) } else { Write::Put(last) };
    // The check runs under the lock: nobody can slip an object in between it and the removal.
    let result = core.store.write(&key(name), Expect::Version(stored.rv), write, |state| {
        let left = state.tables().any(|table| *table != *TABLE && state.scan(table, Some(name)).next().is_some());
        if left { Err(ApiError::conflict("", "namespaces", name, "not empty")) } else { Ok(()) }
    });
    // Not empty yet: the removal of what is left brings us here again.
    drop(result);
}

fn contents(core: &Core, name: &str) -> Vec<(Arc<Resource>, String, String, bool)> {
    let state = core.store.state();
    let mut found = Vec::new();
    for table in state.tables() {
        if **table == **TABLE {
            continue;
        }
        let Some(resource) = core.registry.by_table(table) else { continue };
        if resource.namespaced {
            found.extend(state.scan(table, Some(name)).map(|o| {
                let value = &o.value;
                let terminating = object::is_terminating(value);
                (resource.clone(), object::namespace(value).to_owned(), object::name(value).to_owned(), terminating)
            }));
        }
    }
    found
}
