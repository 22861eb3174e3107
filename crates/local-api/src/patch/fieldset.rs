//! Sets of fields, as `managedFields` hold them: a tree whose steps are written `f:name`, `k:{keys}`, `v:value`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::schema::{Defs, Kind, ListKind, Node};

/// A set of fields below some point of an object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct FieldSet {
    /// The point itself is in the set.
    pub(crate) member: bool,
    pub(crate) children: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    fn leaf() -> Self {
        Self { member: true, children: BTreeMap::new() }
    }

    /// Whether nothing is in it.
    pub(crate) fn is_empty(&self) -> bool {
        !self.member && self.children.values().all(Self::is_empty)
    }

    /// Reads `fieldsV1`.
    pub(crate) fn parse(value: &Value) -> Self {
        let Value::Object(map) = value else { return Self::default() };
        if map.is_empty() {
            return Self::leaf();
        }
        let children = map.iter().filter(|(step, _)| *step != ".").map(|(step, v)| (step.clone(), Self::parse(v)));
        Self { member: map.contains_key("."), children: children.collect() }
    }

    /// Writes `fieldsV1`.
    pub(crate) fn to_value(&self) -> Value {
        let mut map = Map::new();
        if self.member && !self.children.is_empty() {
            map.insert(".".into(), Value::Object(Map::new()));
        }
        for (step, child) in self.children.iter().filter(|(_, c)| !c.is_empty()) {
            map.insert(step.clone(), child.to_value());
        }
        Value::Object(map)
    }

    /// Everything in either.
    pub(crate) fn add(&mut self, other: &Self) {
        self.member |= other.member;
        for (step, child) in &other.children {
            self.children.entry(step.clone()).or_default().add(child);
        }
    }

    /// What is in `self` only.
    pub(crate) fn subtract(&mut self, other: &Self) {
        self.member &= !other.member;
        for (step, child) in &other.children {
            if let Some(own) = self.children.get_mut(step) {
                own.subtract(child);
                if own.is_empty() {
                    self.children.remove(step);
                }
            }
        }
    }

    /// Takes away a field with everything below it.
    pub(crate) fn cut(&mut self, path: &[&str]) {
        let [step, rest @ ..] = path else { return };
        if rest.is_empty() {
            self.children.remove(*step);
        } else if let Some(child) = self.children.get_mut(*step) {
            child.cut(rest);
            if child.is_empty() {
                self.children.remove(*step);
            }
        }
    }

    /// What is in both.
    pub(crate) fn common(&self, other: &Self) -> Self {
        let children = self.children.iter().filter_map(|(step, child)| {
            let both = child.common(other.children.get(step)?);
            (!both.is_empty()).then(|| (step.clone(), both))
        });
        Self { member: self.member && other.member, children: children.collect() }
    }

    /// Paths of the members, as errors show them.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.list("", &mut found);
        found
    }

    fn list(&self, path: &str, found: &mut Vec<String>) {
        // Kubernetes names what is in the set itself before what lies deeper.
        found.extend(self.children.iter().filter(|(_, c)| c.member).map(|(step, _)| format!("{path}{}", shown(step))));
        for (step, child) in &self.children {
            child.list(&format!("{path}{}", shown(step)), found);
        }
    }
}

fn shown(step: &str) -> String {
    match step.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("k", keys)) => match serde_json::from_str(keys) {
            Ok(Value::Object(map)) => {
                let parts: Vec<String> = map.iter().map(|(k, v)| format!("{k}={v}")).collect();
                format!("[{}]", parts.join(","))
            }
            _ => format!("[{keys}]"),
        },
        Some(("v", value)) => format!("[={value}]"),
        _ => format!("[{step}]"),
    }
}

/// The step to an item of a list, or `None` when the list is one value.
pub(crate) fn item_step(item: &Value, list: &Node, defs: &Defs) -> Option<String> {
    match &list.list {
        ListKind::Atomic => None,
        ListKind::Set => Some(format!("v:{item}")),
        ListKind::Map(keys) => {
            let node = list.item(defs).map(|n| n.resolve(defs));
            let mut map: BTreeMap<&str, Value> = BTreeMap::new();
            for key in keys {
                let default = || node.and_then(|n| n.properties.get(key)?.default.clone());
                if let Some(value) = item.get(key).cloned().or_else(default) {
                    map.insert(key, value);
                }
            }
            serde_json::to_string(&map).ok().map(|text| format!("k:{text}"))
        }
    }
}

/// The first item that is twice in a list whose items are told apart, with its path.
pub(crate) fn duplicate(value: &Value, node: Option<&Node>, defs: &Defs, path: &str) -> Option<String> {
    if atomic(node) || is_leaf(value, node, defs) {
        return None;
    }
    match value {
        Value::Object(map) => map
            .iter()
            .find_map(|(name, child)| duplicate(child, field(node, defs, name).0, defs, &format!("{path}.{name}"))),
        Value::Array(list) => {
            let node = node.map(|n| n.resolve(defs))?;
            let mut seen = std::collections::BTreeSet::new();
            list.iter().find_map(|item| {
                let step = item_step(item, node, defs)?;
                let here = shown(&step);
                if !seen.insert(step) {
                    return Some(format!("{path}: duplicate entries for key {here}"));
                }
                duplicate(item, node.item(defs), defs, &format!("{path}{here}"))
            })
        }
        _ => None,
    }
}

/// Whether a value is owned as one: scalars, atomic objects and lists, and what no schema describes.
pub(crate) fn is_leaf(value: &Value, node: Option<&Node>, defs: &Defs) -> bool {
    let node = node.map(|n| n.resolve(defs));
    match value {
        Value::Object(map) => map.is_empty() || node.is_some_and(|n| n.atomic),
        Value::Array(list) => {
            list.is_empty() || node.is_none_or(|n| n.list == ListKind::Atomic || n.kind != Kind::Array)
        }
        _ => true,
    }
}

/// The child's schema and whether it is an entry of a free map rather than a declared field.
fn field<'a>(node: Option<&'a Node>, defs: &'a Defs, name: &str) -> (Option<&'a Node>, bool) {
    let Some(node) = node.map(|n| n.resolve(defs)) else { return (None, true) };
    match node.properties.get(name) {
        Some(field) => (Some(field), false),
        None => (node.additional.as_deref(), true),
    }
}

/// An atomic mark may stand at the field or at what it refers to.
fn atomic(node: Option<&Node>) -> bool {
    node.is_some_and(|n| n.atomic)
}

/// The fields that a configuration names.
pub(crate) fn of(value: &Value, node: Option<&Node>, defs: &Defs) -> FieldSet {
    if atomic(node) || is_leaf(value, node, defs) {
        return FieldSet::leaf();
    }
    let mut set = FieldSet::default();
    match value {
        Value::Object(map) => {
            for (name, child) in map {
                let (field, free) = field(node, defs, name);
                let mut below = of(child, field, defs);
                below.member |= free;
                set.children.insert(format!("f:{name}"), below);
            }
        }
        Value::Array(list) => {
            let Some(node) = node.map(|n| n.resolve(defs)) else { return FieldSet::leaf() };
            for item in list {
                if let Some(step) = item_step(item, node, defs) {
                    let mut below = of(item, node.item(defs), defs);
                    below.member = true;
                    set.children.insert(step, below);
                }
            }
        }
        _ => {}
    }
    set
}

/// Every point of a value that came or went as one, those above the leaves too.
fn whole(value: &Value, node: Option<&Node>, defs: &Defs) -> FieldSet {
    fn mark(set: &mut FieldSet) {
        set.member = true;
        set.children.values_mut().for_each(mark);
    }
    let mut set = of(value, node, defs);
    mark(&mut set);
    set
}

/// What was set or changed from `old` to `new`, and what was taken away.
pub(crate) fn diff(old: Option<&Value>, new: Option<&Value>, node: Option<&Node>, defs: &Defs) -> (FieldSet, FieldSet) {
    let none = FieldSet::default;
    match (old, new) {
        (None, None) => (none(), none()),
        (None, Some(new)) => (whole(new, node, defs), none()),
        (Some(old), None) => (none(), whole(old, node, defs)),
        (Some(old), Some(new)) if old == new => (none(), none()),
        // Nothing in a list or map that is there.
        (Some(Value::Null), Some(new @ Value::Array(_))) => {
            diff(Some(&Value::Array(Vec::new())), Some(new), node, defs)
        }
        (Some(Value::Object(before)), Some(Value::Object(after)))
            if !atomic(node) && !node.is_some_and(|n| n.resolve(defs).atomic) =>
        {
            let (mut changed, mut removed) = (none(), none());
            for name in after.keys().chain(before.keys().filter(|k| !after.contains_key(*k))) {
                let (field, _) = field(node, defs, name);
                let (c, r) = diff(before.get(name), after.get(name), field, defs);
                keep(&mut changed, format!("f:{name}"), c);
                keep(&mut removed, format!("f:{name}"), r);
            }
            (changed, removed)
        }
        (Some(Value::Array(before)), Some(Value::Array(after)))
            if node.map(|n| n.resolve(defs)).is_some_and(|n| n.list != ListKind::Atomic) =>
        {
            let (mut changed, mut removed) = (none(), none());
            let Some(node) = node.map(|n| n.resolve(defs)) else { return (FieldSet::leaf(), none()) };
            let index = |list: &[Value]| -> BTreeMap<String, Value> {
                list.iter().filter_map(|i| Some((item_step(i, node, defs)?, i.clone()))).collect()
            };
            let (before, after) = (index(before), index(after));
            for step in after.keys().chain(before.keys().filter(|k| !after.contains_key(*k))) {
                let (c, r) = diff(before.get(step), after.get(step), node.item(defs), defs);
                keep(&mut changed, step.clone(), c);
                keep(&mut removed, step.clone(), r);
            }
            (changed, removed)
        }
        _ => (FieldSet::leaf(), none()),
    }
}

fn keep(set: &mut FieldSet, step: String, child: FieldSet) {
    if !child.is_empty() {
        set.children.insert(step, child);
    }
}

/// Lays a configuration over an object.
pub(crate) fn merge(live: &mut Value, config: &Value, node: Option<&Node>, defs: &Defs) {
    if atomic(node) || node.is_some_and(|n| n.resolve(defs).atomic) {
        *live = config.clone();
        return;
    }
    match (live, config) {
        (Value::Object(live), Value::Object(config)) => {
            for (name, value) in config {
                let (field, _) = field(node, defs, name);
                match live.get_mut(name) {
                    Some(slot) => merge(slot, value, field, defs),
                    None => {
                        live.insert(name.clone(), value.clone());
                    }
                }
            }
        }
        (Value::Array(live), Value::Array(config))
            if node.map(|n| n.resolve(defs)).is_some_and(|n| n.list != ListKind::Atomic) =>
        {
            let Some(node) = node.map(|n| n.resolve(defs)) else { return };
            for item in config {
                let step = item_step(item, node, defs);
                match live.iter_mut().find(|l| item_step(l, node, defs) == step) {
                    Some(slot) => merge(slot, item, node.item(defs), defs),
                    None => live.push(item.clone()),
                }
            }
        }
        (live, config) => *live = config.clone(),
    }
}

/// Whether a list or map has nothing left in it.
fn is_emptied(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

/// Takes out of `value` what `gone` names, unless `kept` names it or something below it. What is emptied by that goes too.
pub(crate) fn remove(value: &mut Value, gone: &FieldSet, kept: &FieldSet, node: Option<&Node>, defs: &Defs) {
    match value {
        Value::Object(map) => {
            for (step, below) in &gone.children {
                let Some(name) = step.strip_prefix("f:") else { continue };
                let survivors = kept.children.get(step);
                if below.member && survivors.is_none_or(FieldSet::is_empty) {
                    map.shift_remove(name);
                } else if let Some(child) = map.get_mut(name) {
                    let (field, _) = field(node, defs, name);
                    let was_empty = is_emptied(child);
                    remove(child, below, survivors.unwrap_or(&FieldSet::default()), field, defs);
                    if !was_empty && is_emptied(child) && survivors.is_none_or(FieldSet::is_empty) {
                        map.shift_remove(name);
                    }
                }
            }
        }
        Value::Array(list) => {
            let Some(node) = node.map(|n| n.resolve(defs)) else { return };
            list.retain_mut(|item| {
                let Some(step) = item_step(item, node, defs) else { return true };
                let Some(below) = gone.children.get(&step) else { return true };
                let survivors = kept.children.get(&step);
                if below.member && survivors.is_none_or(FieldSet::is_empty) {
                    return false;
                }
                remove(item, below, survivors.unwrap_or(&FieldSet::default()), node.item(defs), defs);
                true
            });
        }
        _ => {}
    }
}
