//! An index of the labels that lists select by: made when a key is first asked for, kept from then on.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::{Entries, Slot, Stored};
use crate::object;

/// Keys indexed at once; lists by further ones look at every object.
const KEYS: usize = 16;

/// The index of one table.
#[derive(Debug, Default)]
pub(super) struct Labels(HashMap<String, HashMap<String, BTreeSet<Slot>>>);

impl Labels {
    /// Whether `key` is indexed; makes its index when there is room for one more.
    pub(super) fn prepare(&mut self, key: &str, objects: &Entries) -> bool {
        if self.0.contains_key(key) {
            return true;
        }
        if self.0.len() >= KEYS {
            return false;
        }
        let mut index: HashMap<String, BTreeSet<Slot>> = HashMap::new();
        for (slot, stored) in objects {
            if let Some(value) = label(stored, key) {
                index.entry(value.to_owned()).or_default().insert(slot.clone());
            }
        }
        self.0.insert(key.to_owned(), index);
        true
    }

    /// The objects with one of these values, optionally of one namespace.
    pub(super) fn find<'a>(
        &'a self,
        key: &str,
        values: &'a [String],
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Slot> {
        let index = self.0.get(key);
        let slots: BTreeSet<&Slot> = values.iter().filter_map(move |value| index?.get(value)).flatten().collect();
        slots.into_iter().filter(move |(ns, _)| namespace.is_none_or(|wanted| **ns == *wanted))
    }

    /// Brings the index up to date with one change.
    pub(super) fn change(&mut self, slot: &Slot, old: Option<&Arc<Stored>>, new: Option<&Arc<Stored>>) {
        for (key, index) in &mut self.0 {
            let (before, after) = (old.and_then(|o| label(o, key)), new.and_then(|n| label(n, key)));
            if before == after {
                continue;
            }
            if let Some(value) = before
                && let Some(slots) = index.get_mut(value)
            {
                slots.remove(slot);
                if slots.is_empty() {
                    index.remove(value);
                }
            }
            if let Some(value) = after {
                index.entry(value.to_owned()).or_default().insert(slot.clone());
            }
        }
    }
}

fn label<'a>(stored: &'a Arc<Stored>, key: &str) -> Option<&'a str> {
    object::meta(&stored.value).get("labels")?.get(key)?.as_str()
}
