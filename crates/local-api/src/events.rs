//! Events have two faces, `v1` and `events.k8s.io/v1`, over one stored form, the former.

use std::sync::Arc;

use serde_json::Value;

use crate::core::Core;
use crate::error::Cause;
use crate::kinds::{Builtin, Resource};
use crate::object;
use crate::store::{Expect, Key, Stored, Write};
use crate::verbs::Target;

/// `(events.k8s.io/v1, v1)`
const NAMES: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("reportingController", "reportingComponent"),
];

fn has_other_face(resource: &Resource) -> bool {
    resource.is(Builtin::Event) && !resource.group.is_empty()
}

/// Gives an object the stored form.
pub(crate) fn to_storage(value: &mut Value, resource: &Resource) {
    if has_other_face(resource) {
        rename(value, |(new, old)| (new, old));
    }
    if resource.api_version() != resource.storage_api_version {
        value["apiVersion"] = resource.storage_api_version.clone().into();
    }
}

/// Gives a stored object the form in which `resource` serves it. `None` when that is the stored form.
pub(crate) fn from_storage(value: &Value, resource: &Resource) -> Option<Value> {
    let version = resource.api_version();
    if value.get("apiVersion").is_some_and(|v| *v == version.as_str()) {
        return None;
    }
    let mut value = value.clone();
    if has_other_face(resource) {
        if let Value::Object(map) = &mut value {
            for field in ["reportingComponent", "reportingInstance"] {
                if map.get(field).is_some_and(|v| v == "") {
                    map.shift_remove(field);
                }
            }
        }
        rename(&mut value, |(new, old)| (old, new));
    }
    value["apiVersion"] = version.into();
    Some(value)
}

fn rename(value: &mut Value, direction: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str)) {
    let Value::Object(map) = value else { return };
    for pair in NAMES {
        let (from, to) = direction(pair);
        if let Some(moved) = map.shift_remove(from) {
            map.insert(to.into(), moved);
        }
    }
}

/// Table of the events.
pub(crate) const TABLE: &str = "events";
/// An event goes so long after it was last seen.
const LIFETIME: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);
/// Old events are looked for at most so often, unless there are too many.
const SWEEP_EVERY: jiff::SignedDuration = jiff::SignedDuration::from_mins(1);

/// Removes events whose time is over, and the oldest where there are too many.
pub(crate) fn expire(core: &Core) {
    let now = core.clock.now();
    let (most, count) = {
        let state = core.store.state();
        (state.limits().events, state.count(TABLE))
    };
    {
        let mut swept = core.swept.lock();
        let recently = swept.is_some_and(|then| now.duration_since(then) < SWEEP_EVERY);
        if recently && count <= most {
            return;
        }
        *swept = Some(now);
    }
    let mut events: Vec<(jiff::Timestamp, Arc<Stored>)> =
        core.store.state().scan(TABLE, None).map(|o| (last_seen(&o.value), o.clone())).collect();
    events.sort_by_key(|(seen, stored)| (*seen, stored.rv));
    // A tenth more goes than must, so that not every further event costs a sweep.
    let surplus = if events.len() > most { events.len() - most + most / 10 } else { 0 };
    let table = TABLE.into();
    for (index, (seen, stored)) in events.into_iter().enumerate() {
        if index >= surplus && now.duration_since(seen) < LIFETIME {
            break;
        }
        let key = Key::new(&table, object::namespace(&stored.value), object::name(&stored.value));
        // One that was written meanwhile is no longer old.
        drop(core.store.write(&key, Expect::Version(stored.rv), Write::Remove(stored.value.clone()), |_| Ok(())));
    }
}

fn last_seen(event: &Value) -> jiff::Timestamp {
    ["series.lastObservedTime", "lastTimestamp", "eventTime", "metadata.creationTimestamp"]
        .into_iter()
        .filter_map(|path| object::str_at(event, path).parse().ok())
        .max()
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

/// Fields that an event always shows.
pub(crate) fn fill(event: &mut Value) {
    let Value::Object(map) = event else { return };
    map.entry("eventTime").or_insert(Value::Null);
    for field in ["reportingComponent", "reportingInstance"] {
        map.entry(field).or_insert_with(|| "".into());
    }
    for field in ["source", "involvedObject"] {
        map.entry(field).or_insert_with(|| Value::Object(Default::default()));
    }
    for field in ["firstTimestamp", "lastTimestamp"] {
        map.entry(field).or_insert(Value::Null);
    }
}

/// What is wrong with an event, in the words of the face it came through.
pub(crate) fn check(target: &Target, old: Option<&Value>, event: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let text = |path: &str| object::str_at(event, path);
    let about = text("involvedObject.namespace");
    let elsewhere = about != target.namespace && !(about.is_empty() && target.namespace == "default");
    if has_other_face(&target.resource) {
        if let Some(old) = old {
            for (field, stored) in [("note", "message"), ("reason", "reason"), ("action", "action"), ("type", "type")] {
                if old.get(stored) != event.get(stored) {
                    let now = event.get(stored).cloned().unwrap_or_default();
                    causes.push(Cause::invalid(field, &now, "field is immutable"));
                }
            }
            return causes;
        }
        if object::at(event, "eventTime").is_none() {
            causes.push(Cause::required("eventTime", ""));
        } else {
            for (field, stored) in [
                ("reportingController", "reportingComponent"),
                ("reportingInstance", "reportingInstance"),
                ("action", "action"),
                ("reason", "reason"),
            ] {
                if text(stored).is_empty() {
                    causes.push(Cause::required(field, ""));
                }
            }
        }
        if !["Normal", "Warning"].contains(&text("type")) {
            let what = format!("has invalid value: {}", text("type"));
            causes.push(Cause::invalid("type", &"".into(), what));
        }
    }
    if old.is_none() && elsewhere && causes.is_empty() {
        causes.push(Cause::invalid("involvedObject.namespace", &about.into(), "does not match event.namespace"));
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn there_and_back() {
        let face = crate::kinds::builtins().into_iter().find(|r| r.group == "events.k8s.io").expect("built in");
        let sent = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "note": "n", "regarding": {"name": "x"}});
        let mut stored = sent.clone();
        to_storage(&mut stored, &face);
        assert_eq!(
            stored,
            json!({"apiVersion": "v1", "kind": "Event", "message": "n", "involvedObject": {"name": "x"}})
        );
        assert_eq!(from_storage(&stored, &face), Some(sent));
    }
}
