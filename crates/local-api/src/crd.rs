//! CustomResourceDefinitions: checked, established, served, and cleaned up after.

use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::core::Core;
use crate::error::Cause;
use crate::kinds::{Builtin, Column, Resource, ScalePaths};
use crate::object;
use crate::patch::managed::Source;
use crate::schema::{Defs, Node, Schema, compile};
use crate::store::{Expect, Key, Table, Write};
use crate::verbs::delete::DeleteOptions;
use crate::verbs::{Target, WriteOptions, delete, names, update};

/// Table of the definitions.
pub(crate) const TABLE: &str = "customresourcedefinitions.apiextensions.k8s.io";
/// Holds a definition until its objects are gone.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

static TABLE_KEY: LazyLock<Table> = LazyLock::new(|| TABLE.into());

static METADATA: LazyLock<Node> = LazyLock::new(|| Node {
    reference: Some("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta".into()),
    ..Node::default()
});

/// The schema of every object's metadata.
pub(crate) fn metadata_node() -> Node {
    METADATA.clone()
}

/// Serves what is stored already.
pub(crate) fn load(core: &Core) {
    let stored: Vec<Value> = core.store.state().scan(TABLE, None).map(|o| o.value.clone()).collect();
    for value in stored {
        serve(core, &value);
    }
}

fn versions(value: &Value) -> impl Iterator<Item = &Value> {
    object::at(value, "spec.versions").and_then(Value::as_array).into_iter().flatten()
}

fn flag(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or(false)
}

fn strings(value: Option<&Value>) -> Vec<String> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(Into::into).collect()
}

fn serve(core: &Core, value: &Value) {
    let (group, plural) = (object::str_at(value, "spec.group"), object::str_at(value, "spec.names.plural"));
    let resources = resources(value);
    let kept: Vec<&str> = resources.iter().map(|r| r.version.as_str()).collect();
    core.registry.remove(group, plural, &kept);
    for resource in resources {
        core.registry.add(resource);
    }
}

/// The resources that a definition brings, one a served version.
fn resources(value: &Value) -> Vec<Resource> {
    let group = object::str_at(value, "spec.group");
    let names = object::at(value, "spec.names").unwrap_or(&Value::Null);
    let text = |key: &str| names.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let plural = text("plural");
    let storage =
        versions(value).find(|v| flag(v, "storage")).and_then(|v| v.get("name")?.as_str()).unwrap_or_default();
    let schema_of = |v: &Value| {
        let mut root = compile(object::at(v, "schema.openAPIV3Schema")?).ok()?;
        // Kubernetes looks after these itself, whatever the definition says.
        for field in ["apiVersion", "kind", "metadata"] {
            root.properties.remove(field);
        }
        root.embedded = false;
        root.preserve |= flag(value.get("spec")?, "preserveUnknownFields");
        Some(Schema { root, defs: crate::kinds::definitions() })
    };
    let stored = versions(value).find(|v| flag(v, "storage")).and_then(schema_of);
    versions(value)
        .filter(|v| flag(v, "served"))
        .filter_map(|v| {
            let version = v.get("name")?.as_str()?;
            let schema = schema_of(v)?;
            let kind = text("kind");
            let list_kind = Some(text("listKind")).filter(|k| !k.is_empty()).unwrap_or_else(|| format!("{kind}List"));
            Some(Resource {
                group: group.into(),
                version: version.into(),
                plural: plural.clone(),
                singular: Some(text("singular")).filter(|s| !s.is_empty()).unwrap_or_else(|| kind.to_lowercase()),
                kind,
                list_kind,
                short_names: strings(names.get("shortNames")),
                categories: strings(names.get("categories")),
                namespaced: object::str_at(value, "spec.scope") == "Namespaced",
                has_status: object::at(v, "subresources.status").is_some(),
                counts_generations: true,
                table: format!("{plural}.{group}").into(),
                storage_api_version: format!("{group}/{storage}"),
                schema,
                storage_schema: if version == storage { None } else { stored.clone() },
                columns: columns(v),
                scale: scale_of(v),
                deprecation: deprecation(v, group, &text("kind")),
                selectable: v
                    .get("selectableFields")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .filter_map(|f| f.get("jsonPath")?.as_str())
                    .map(Into::into)
                    .collect(),
                builtin: None,
            })
        })
        .collect()
}

/// What answers of a deprecated version warn of.
fn deprecation(version: &Value, group: &str, kind: &str) -> Option<String> {
    if !flag(version, "deprecated") {
        return None;
    }
    let name = version.get("name").and_then(Value::as_str).unwrap_or_default();
    let told = version.get("deprecationWarning").and_then(Value::as_str);
    Some(told.map_or_else(|| format!("{group}/{name} {kind} is deprecated"), Into::into))
}

fn scale_of(version: &Value) -> Option<ScalePaths> {
    let scale = object::at(version, "subresources.scale")?;
    let path =
        |key: &str| scale.get(key).and_then(Value::as_str).unwrap_or_default().trim_start_matches('.').to_owned();
    Some(ScalePaths {
        spec: path("specReplicasPath"),
        status: path("statusReplicasPath"),
        selector: path("labelSelectorPath"),
    })
}

fn columns(version: &Value) -> Vec<Column> {
    let list = version.get("additionalPrinterColumns").and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .map(|c| {
            let text = |key: &str| c.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            let path = text("jsonPath");
            let described = Some(text("description")).filter(|d| !d.is_empty());
            Column {
                name: text("name"),
                kind: text("type"),
                format: text("format"),
                description: described
                    .unwrap_or_else(|| format!("Custom resource definition column (in JSONPath format): {path}")),
                priority: c.get("priority").and_then(Value::as_i64).unwrap_or(0),
                json_path: path,
            }
        })
        .collect()
}

/// Fills in what depends on other fields of the definition.
pub(crate) fn defaults(value: &mut Value) {
    let Some(Value::Object(names)) = value.get_mut("spec").and_then(|s| s.get_mut("names")) else { return };
    let kind = names.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    names.entry("listKind").or_insert_with(|| format!("{kind}List").into());
    names.entry("singular").or_insert_with(|| kind.to_lowercase().into());
    let spec = object::child_mut(value, "spec");
    spec.entry("conversion").or_insert_with(|| json!({"strategy": "None"}));
}

/// Nothing is done to a definition beyond its defaults.
pub(crate) fn prepare(value: &mut Value) {
    defaults(value);
}

/// What a new definition gets; its names are accepted a moment later.
pub(crate) fn prepare_create(value: &mut Value) {
    prepare(value);
    let stored: Vec<Value> =
        versions(value).filter(|v| flag(v, "storage")).filter_map(|v| v.get("name").cloned()).collect();
    value["status"] =
        json!({"acceptedNames": {"plural": "", "kind": ""}, "conditions": null, "storedVersions": stored});
}

/// Everything wrong with a definition.
pub(crate) fn check(old: Option<&Value>, value: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let (group, plural) = (object::str_at(value, "spec.group"), object::str_at(value, "spec.names.plural"));
    if object::name(value) != format!("{plural}.{group}") {
        causes.push(Cause::invalid(
            "metadata.name",
            &object::name(value).into(),
            "must be spec.names.plural+\".\"+spec.group",
        ));
    }
    if group.is_empty() {
        causes.push(Cause::required("spec.group", ""));
    } else if !names::is_subdomain(group) || !group.contains('.') {
        causes.push(Cause::invalid("spec.group", &group.into(), "should be a domain with at least one dot"));
    }
    for field in ["plural", "kind", "singular", "listKind"] {
        let path = format!("spec.names.{field}");
        let text = object::str_at(value, &path);
        if text.is_empty() {
            causes.push(Cause::required(path, ""));
        } else if !names::is_label(&text.to_lowercase()) {
            causes.push(Cause::invalid(path, &text.into(), names::LABEL_RULE));
        }
    }
    let scope = object::str_at(value, "spec.scope");
    if scope.is_empty() {
        causes.push(Cause::required("spec.scope", ""));
    } else if !["Cluster", "Namespaced"].contains(&scope) {
        causes.push(Cause::unsupported("spec.scope", &scope.into(), &["Cluster".into(), "Namespaced".into()]));
    }
    if versions(value).filter(|v| flag(v, "storage")).count() != 1 {
        let list = object::at(value, "spec.versions").cloned().unwrap_or_default();
        causes.push(Cause::invalid("spec.versions", &list, "must have exactly one version marked as storage version"));
    }
    let mut seen = Vec::new();
    let alone = versions(value).count() == 1;
    for (index, version) in versions(value).enumerate() {
        let path = format!("spec.versions[{index}]");
        let name = version.get("name").and_then(Value::as_str).unwrap_or_default();
        if !names::is_label(name) {
            causes.push(Cause::invalid(format!("{path}.name"), &name.into(), names::LABEL_RULE));
        }
        if seen.contains(&name) {
            causes.push(Cause::invalid(format!("{path}.name"), &name.into(), "must be unique"));
        }
        seen.push(name);
        // Kubernetes keeps the schema of an only version apart from the version, and says so.
        let place = if alone { "spec.validation".to_owned() } else { format!("{path}.schema") };
        match object::at(version, "schema.openAPIV3Schema") {
            None => causes.push(Cause::required(format!("{path}.schema.openAPIV3Schema"), "")),
            Some(schema) => match compile(schema) {
                Ok(root) => structural(&root, &format!("{place}.openAPIV3Schema"), true, &mut causes),
                Err(error) if error.what == "rule is not specified" => {
                    causes.push(Cause::required(format!("{place}.{}", error.path), &error.what));
                }
                Err(error) => {
                    causes.push(Cause::invalid(format!("{place}.{}", error.path), &Value::Null, error.what));
                }
            },
        }
    }
    if versions(value).all(|v| !flag(v, "storage")) {
        causes.push(Cause::invalid("status.storedVersions", &Value::Null, "must have at least one stored version"));
    }
    if let Some(old) = old {
        let stored = object::at(old, "status.storedVersions").and_then(Value::as_array);
        for (index, name) in
            stored.into_iter().flatten().enumerate().filter(|(_, n)| !seen.contains(&n.as_str().unwrap_or_default()))
        {
            let shown = name.as_str().unwrap_or_default();
            let why = format!(
                "missing from spec.versions; {shown} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {shown} and removes {shown} from status.storedVersions"
            );
            causes.push(Cause::invalid(format!("status.storedVersions[{index}]"), name, why));
        }
        for field in ["spec.group", "spec.names.kind", "spec.names.plural", "spec.scope"] {
            if object::at(old, field) != object::at(value, field) {
                let now = object::at(value, field).cloned().unwrap_or_default();
                causes.push(Cause::invalid(field, &now, "field is immutable"));
            }
        }
    }
    causes
}

/// Kubernetes serves only structural schemas: each node has a type, unless it says why not.
fn structural(node: &Node, path: &str, root: bool, causes: &mut Vec<Cause>) {
    use crate::schema::Kind;
    if node.kind == Kind::Any && !node.int_or_string && !node.preserve && node.reference.is_none() {
        let detail =
            if root { "must not be empty at the root" } else { "must not be empty for specified object fields" };
        causes.push(Cause::required(format!("{path}.type"), detail));
    }
    if root && node.kind != Kind::Object && node.kind != Kind::Any {
        causes.push(Cause::invalid(format!("{path}.type"), &node.kind.word().into(), "must be object at the root"));
    }
    if node.kind == Kind::Array && node.items.is_none() && !node.preserve {
        causes.push(Cause::required(format!("{path}.items"), "must be specified"));
    }
    for (name, field) in &node.properties {
        if root && name == "metadata" {
            continue;
        }
        structural(field, &format!("{path}.properties[{name}]"), false, causes);
    }
    if let Some(default) = &node.default {
        for mut cause in crate::schema::validate(default, node, &Defs::default()) {
            cause.field = format!("{path}.default");
            causes.push(cause);
        }
    }
    if let Some(items) = &node.items {
        structural(items, &format!("{path}.items"), false, causes);
    }
    if let Some(additional) = &node.additional {
        structural(additional, &format!("{path}.additionalProperties"), false, causes);
    }
}

/// After a write: serves what is stored now, and says so in the status.
pub(crate) fn settle(core: &Core, name: &str) {
    let key = Key::new(&TABLE_KEY, "", name);
    let Some(stored) = core.store.get(&key) else {
        if let Some((plural, group)) = name.split_once('.') {
            core.registry.remove(group, plural, &[]);
            core.store.end_watches(&name.into());
        }
        return;
    };
    serve(core, &stored.value);
    let Some(resource) = core.registry.get("apiextensions.k8s.io", "v1", "customresourcedefinitions") else { return };
    let mut target = Target::new(resource, "", name);
    target.subresource = Some("status".into());
    let now = core.now();
    let options = WriteOptions { manager: "osb".into(), ..WriteOptions::default() };
    let result = update::modify(core, &target, &options, &Source::Update, |old| {
        let mut new = old.clone();
        new["status"] = status(old, &now);
        Ok(new)
    });
    if let Err(error) = result
        && error.code != 404
    {
        tracing::warn!(%error, name, "cannot write a definition's status");
    }
}

fn status(old: &Value, now: &str) -> Value {
    let mut status = old.get("status").cloned().filter(Value::is_object).unwrap_or_else(|| json!({}));
    status["acceptedNames"] = object::at(old, "spec.names").cloned().unwrap_or_else(|| json!({}));
    let mut stored = strings(status.get("storedVersions"));
    if let Some(name) = versions(old).find(|v| flag(v, "storage")).and_then(|v| v.get("name")?.as_str())
        && !stored.iter().any(|s| s == name)
    {
        stored.push(name.into());
    }
    status["storedVersions"] = json!(stored);
    let mut conditions = vec![
        ("NamesAccepted", "NoConflicts", "no conflicts found"),
        ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
    ];
    if object::is_terminating(old) {
        conditions.push(("Terminating", "InstanceDeletionInProgress", "CustomResource deletion is in progress"));
    }
    let before = status.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let list: Vec<Value> = conditions
        .into_iter()
        .map(|(kind, reason, message)| {
            let known = before.iter().find(|c| c.get("type").is_some_and(|t| t == kind));
            let since = known.and_then(|c| c.get("lastTransitionTime")).cloned().unwrap_or_else(|| now.into());
            json!({"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": since})
        })
        .collect();
    status["conditions"] = list.into();
    status
}

/// Deletes the objects of a definition that is being deleted; when none is left, the definition.
pub(crate) fn cleanup(core: &Core, name: &str) {
    let key = Key::new(&TABLE_KEY, "", name);
    let Some(stored) = core.store.get(&key) else { return };
    if !object::is_terminating(&stored.value) || !object::has_finalizer(&stored.value, CLEANUP) {
        return;
    }
    let table: Table = name.into();
    let objects: Vec<Value> = core.store.state().scan(&table, None).map(|o| o.value.clone()).collect();
    if let Some(resource) = core.registry.by_table(&table) {
        for value in objects.iter().filter(|v| !object::is_terminating(v)) {
            let target = Target::new(resource.clone(), object::namespace(value), object::name(value));
            if let Err(error) = delete::delete(core, &target, &DeleteOptions::default())
                && error.code != 404
            {
                tracing::warn!(%error, name, "cannot delete an object of a definition that goes");
            }
        }
    }
    let mut last = stored.value.clone();
    object::remove_finalizer(&mut last, CLEANUP);
    let gone = update::is_deleted_by(&last);
    let write = if gone { Write::Remove(last) } else { Write::Put(last) };
    let result = core.store.write(&key, Expect::Version(stored.rv), write, |state| {
        if state.scan(&table, None).next().is_some() {
            return Err(crate::error::ApiError::conflict(
                "apiextensions.k8s.io",
                "customresourcedefinitions",
                name,
                "objects are left",
            ));
        }
        Ok(())
    });
    // Objects that finalizers hold bring us here again when they go.
    drop(result);
}

/// Whether a target is a definition.
pub(crate) fn is_definition(target: &Target) -> bool {
    target.resource.is(Builtin::Definition)
}
