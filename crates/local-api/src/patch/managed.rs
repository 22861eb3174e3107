//! Who owns which field: `metadata.managedFields`.

use serde_json::{Value, json};

use super::fieldset::{self, FieldSet};
use crate::core::Core;
use crate::error::{ApiError, Result};
use crate::kinds::Builtin;
use crate::object;
use crate::schema::{Defs, Node};
use crate::verbs::{Target, WriteOptions};

/// How a write came about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'a> {
    /// A create, update or patch: what changed is owned by the writer.
    Update,
    /// A server-side apply that names these fields.
    Apply(&'a FieldSet),
}

/// One entry of `managedFields`.
#[derive(Debug, Clone)]
pub(crate) struct Manager {
    pub(crate) name: String,
    pub(crate) operation: String,
    pub(crate) api_version: String,
    pub(crate) subresource: String,
    pub(crate) time: Value,
    pub(crate) fields: FieldSet,
}

impl Manager {
    /// The manager as errors name it.
    pub(crate) fn shown(&self) -> String {
        let mut text = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == "Update" {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }

    fn to_value(&self) -> Value {
        let mut entry = json!({"manager": self.name, "operation": self.operation, "apiVersion": self.api_version});
        // An apply that changed nothing has no time.
        if !self.time.is_null() {
            entry["time"] = self.time.clone();
        }
        entry["fieldsType"] = "FieldsV1".into();
        entry["fieldsV1"] = self.fields.to_value();
        if !self.subresource.is_empty() {
            entry["subresource"] = self.subresource.clone().into();
        }
        entry
    }
}

/// The entries of an object.
pub(crate) fn owners(value: &Value) -> Vec<Manager> {
    let list = object::meta(value).get("managedFields").and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(|entry| {
            let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            let fields = FieldSet::parse(entry.get("fieldsV1")?);
            Some(Manager {
                name: text("manager"),
                operation: text("operation"),
                api_version: text("apiVersion"),
                subresource: text("subresource"),
                time: entry.get("time").cloned().unwrap_or_default(),
                fields,
            })
        })
        .collect()
}

/// Most managers that are remembered by what they updated; what the oldest own beyond that is owned by one together.
const UPDATERS: usize = 10;
/// Who that one is.
const ANCIENT: &str = "ancient-changes";
/// Who owns what an object without owners had before it was first applied to.
const BEFORE_APPLY: &str = "before-first-apply";

fn set(value: &mut Value, mut managers: Vec<Manager>) {
    managers.retain(|m| !m.fields.is_empty());
    let order = |m: &Manager| {
        let time = m.time.as_str().unwrap_or_default().to_owned();
        (m.operation.clone(), time, m.name.clone(), m.api_version.clone(), m.subresource.clone())
    };
    managers.sort_by_key(order);
    while managers.iter().filter(|m| m.operation == "Update").count() > UPDATERS {
        let mut updaters = managers.iter().enumerate().filter(|(_, m)| m.operation == "Update").map(|(at, _)| at);
        let (Some(first), Some(second)) = (updaters.next(), updaters.next()) else { break };
        let oldest = managers.remove(first);
        let next = &mut managers[second - 1];
        next.fields.add(&oldest.fields);
        next.name = ANCIENT.into();
    }
    let list: Vec<Value> = managers.iter().map(Manager::to_value).collect();
    let meta = object::meta_mut(value);
    if list.is_empty() {
        meta.shift_remove("managedFields");
    } else {
        meta.insert("managedFields".into(), list.into());
    }
}

/// Fields that belong to the server, whoever writes them.
const SERVERS: [&str; 12] = [
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "selfLink",
    "uid",
    "clusterName",
    "generateName",
];

/// Takes out of a set what no manager owns.
pub(crate) fn strip(set: &mut FieldSet, target: &Target) {
    set.member = false;
    for top in ["f:apiVersion", "f:kind"] {
        set.cut(&[top]);
    }
    for field in SERVERS {
        // The generated part of a name is the server's, the wish for it is not; Kubernetes keeps `generateName`.
        if field != "generateName" {
            set.cut(&["f:metadata", &format!("f:{field}")]);
        }
    }
    if let Some(child) = set.children.get_mut("f:metadata") {
        child.member = false;
        if child.is_empty() {
            set.children.remove("f:metadata");
        }
    }
    if target.is_status() {
        let metadata = !target.resource.is_custom();
        set.children.retain(|step, _| step == "f:status" || metadata && step == "f:metadata");
    } else if target.resource.has_status {
        set.cut(&["f:status"]);
    }
}

/// The schema that tells how fields of `target` merge, with metadata in it.
pub(crate) fn schema_of(target: &Target) -> (Node, std::sync::Arc<Defs>) {
    let schema = &target.resource.schema;
    let mut root = schema.root.clone();
    if target.resource.is_custom() {
        root.properties.insert("metadata".into(), crate::crd::metadata_node());
    }
    (root, schema.defs.clone())
}

/// The owners of a stored object before an apply: one that nobody owns is owned by whoever made it.
pub(crate) fn owners_for_apply(live: &Value, target: &Target) -> Vec<Manager> {
    let managers = owners(live);
    if !managers.is_empty() {
        return managers;
    }
    let (root, defs) = schema_of(target);
    let (mut fields, _) = fieldset::diff(Some(&blank(target)), Some(live), Some(&root), &defs);
    let whole = Target { subresource: None, ..target.clone() };
    strip(&mut fields, &whole);
    vec![Manager {
        name: BEFORE_APPLY.into(),
        operation: "Update".into(),
        api_version: target.resource.api_version(),
        subresource: String::new(),
        time: object::meta(live).get("creationTimestamp").cloned().unwrap_or_default(),
        fields,
    }]
}

/// What Go takes for an object in which nothing is set: the built-in kinds have their parts, empty.
fn blank(target: &Target) -> Value {
    if target.resource.is_custom() {
        return json!({"metadata": {}});
    }
    let spec = match target.resource.builtin {
        Some(Builtin::Pod) => json!({"containers": []}),
        Some(Builtin::Namespace) => json!({"finalizers": ["kubernetes"]}),
        Some(Builtin::Definition) => json!({"names": {}, "versions": []}),
        _ => json!({}),
    };
    json!({
        "metadata": {}, "spec": spec, "status": {}, "involvedObject": {}, "source": {}, "reportingComponent": "",
        "reportingInstance": "", "eventTime": null, "firstTimestamp": null, "lastTimestamp": null,
    })
}

/// Brings `new.metadata.managedFields` up to date.
pub(crate) fn record(
    core: &Core,
    target: &Target,
    old: Option<&Value>,
    new: &mut Value,
    options: &WriteOptions,
    source: &Source<'_>,
) -> Result<()> {
    let given = object::meta(new).get("managedFields").and_then(Value::as_array);
    // Kubernetes: whoever sends one empty entry resets the owners.
    let reset =
        given.is_some_and(|l| !l.is_empty() && l.iter().all(|e| e.as_object().is_some_and(serde_json::Map::is_empty)));
    let mut managers = match given {
        Some(list) if !list.is_empty() => owners(new),
        _ => match (old, source) {
            (Some(old), Source::Apply(_)) => owners_for_apply(old, target),
            (old, _) => old.map(owners).unwrap_or_default(),
        },
    };
    if reset {
        managers.clear();
    }
    // Kubernetes: once nobody owns anything, updates own nothing until somebody applies.
    if matches!(source, Source::Update) && old.is_some() && managers.is_empty() {
        object::meta_mut(new).shift_remove("managedFields");
        return Ok(());
    }
    let (root, defs) = schema_of(target);
    let api_version = target.resource.api_version();
    let subresource = target.subresource.clone().unwrap_or_default();
    let same = old.is_some_and(|old| object::same_but_managed_fields(old, new));
    let (mut changed, mut removed) = match old {
        Some(_) if same => Default::default(),
        Some(old) => fieldset::diff(Some(old), Some(new), Some(&root), &defs),
        None => {
            // What is in the object and absent here was not taken away.
            let mut blank = blank(target);
            if let (Value::Object(blank), Some(new)) = (&mut blank, new.as_object()) {
                blank.retain(|key, _| new.contains_key(key));
            }
            fieldset::diff(Some(&blank), Some(new), Some(&root), &defs)
        }
    };
    strip(&mut changed, target);
    strip(&mut removed, target);
    let operation = match source {
        Source::Update => "Update",
        Source::Apply(_) => "Apply",
    };
    let mine = |m: &Manager| {
        m.name == options.manager
            && m.operation == operation
            && m.subresource == subresource
            && m.api_version == api_version
    };
    for manager in managers.iter_mut().filter(|m| !mine(m)) {
        manager.fields.subtract(&changed);
        manager.fields.subtract(&removed);
    }
    let fields = match source {
        Source::Update => {
            let mut fields = managers.iter().find(|m| mine(m)).map(|m| m.fields.clone()).unwrap_or_default();
            fields.subtract(&removed);
            fields.add(&changed);
            fields
        }
        Source::Apply(fields) => (*fields).clone(),
    };
    let timed = match source {
        Source::Update => !changed.is_empty(),
        Source::Apply(_) => !same,
    };
    match managers.iter_mut().find(|m| mine(m)) {
        Some(manager) => {
            if timed {
                manager.time = core.now().into();
            }
            manager.fields = fields;
        }
        None if matches!(source, Source::Update) && !timed => {}
        None => managers.push(Manager {
            name: options.manager.clone(),
            operation: operation.into(),
            api_version,
            subresource,
            time: if timed { core.now().into() } else { Value::Null },
            fields,
        }),
    }
    set(new, managers);
    Ok(())
}

/// Whether the owners differ in more than the times of their entries.
pub(crate) fn owners_changed(old: &Value, new: &Value) -> bool {
    let key = |value: &Value| -> Vec<(String, String, String, String, FieldSet)> {
        owners(value).into_iter().map(|m| (m.name, m.operation, m.api_version, m.subresource, m.fields)).collect()
    };
    let (a, b) = (object::meta(old).get("managedFields"), object::meta(new).get("managedFields"));
    a != b && key(old) != key(new)
}

/// The refusal of an apply that would change what others own.
pub(crate) fn conflict(conflicts: &[(Manager, FieldSet)]) -> ApiError {
    let mut causes = Vec::new();
    let mut parts = Vec::new();
    let mut conflicts: Vec<_> = conflicts.iter().collect();
    conflicts.sort_by_key(|(manager, _)| manager.shown());
    for (manager, fields) in conflicts {
        let paths = fields.paths();
        parts.push(format!("conflicts with {}:\n- {}", manager.shown(), paths.join("\n- ")));
        causes.extend(paths.into_iter().map(|field| crate::error::Cause {
            reason: "FieldManagerConflict",
            message: format!("conflict with {}", manager.shown()),
            field,
        }));
    }
    let message = match causes.as_slice() {
        [one] => format!("Apply failed with 1 conflict: {}: {}", one.message, one.field),
        many => format!("Apply failed with {} conflicts: {}", many.len(), parts.join("\n")),
    };
    let mut error = ApiError::new(409, "Conflict", message);
    error.details.causes = causes;
    error
}
