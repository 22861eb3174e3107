//! Conditions that keep their time while they say the same.

use api_types::crd::Condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::world::Trouble;

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

/// Reasons between which the kubelet goes to and fro while an image cannot be pulled.
const IMAGE: [&str; 2] = ["ErrImagePull", "ImagePullBackOff"];

/// What to say of a trouble: the words of before while only the kubelet's mood has changed.
pub fn steady(old: &[Condition], kind: &str, trouble: &Trouble) -> Trouble {
    let same = |c: &&Condition| {
        let reason = c.reason.as_deref().unwrap_or_default();
        c.kind == kind && IMAGE.contains(&reason) && IMAGE.contains(&trouble.reason.as_str())
    };
    match old.iter().find(same) {
        Some(c) => Trouble::new(c.reason.clone().unwrap_or_default(), c.message.clone().unwrap_or_default()),
        None => trouble.clone(),
    }
}

/// A time as Kubernetes keeps it: whole seconds.
pub fn seconds(now: jiff::Timestamp) -> Time {
    Time(jiff::Timestamp::from_second(now.as_second()).unwrap_or(now))
}
