//! Conditions that keep their time while they say the same.

use api_types::crd::Condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Replaces the conditions of the kinds in `ours` by `new`; those of other kinds stay.
pub fn replace(old: &[Condition], ours: &[&str], new: Vec<Condition>) -> Vec<Condition> {
    let mut list: Vec<Condition> = old.iter().filter(|c| !ours.contains(&c.kind.as_str())).cloned().collect();
    for condition in new {
        match old.iter().find(|c| c.says_same(&condition)) {
            Some(same) => list.push(same.clone()),
            None => list.push(condition),
        }
    }
    list
}

/// A time as Kubernetes keeps it: whole seconds.
pub fn seconds(now: jiff::Timestamp) -> Time {
    Time(jiff::Timestamp::from_second(now.as_second()).unwrap_or(now))
}
