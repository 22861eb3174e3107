//! What must hold at every version of the API.

use std::collections::BTreeMap;
use std::sync::Arc;

use api_types::crd::{BatchSandbox, GrantState, Pool};
use api_types::names::labels;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use crate::daemons::Accepted;
use crate::history::{Change, Object};

/// Everything there is at one version.
#[derive(Debug, Default)]
pub struct View {
    /// Pods by UID.
    pub pods: BTreeMap<String, Pod>,
    /// Pools by UID.
    pub pools: BTreeMap<String, Pool>,
    /// BatchSandboxes by UID.
    pub batches: BTreeMap<String, BatchSandbox>,
}

impl View {
    /// Applies one change.
    pub fn apply(&mut self, change: &Change) {
        fn put<K: Clone>(into: &mut BTreeMap<String, K>, change: &Change, object: &K) {
            if change.gone {
                into.remove(&change.uid);
            } else {
                into.insert(change.uid.clone(), object.clone());
            }
        }
        match &change.object {
            Object::Pod(pod) => put(&mut self.pods, change, pod),
            Object::Pool(pool) => put(&mut self.pools, change, pool),
            Object::Batch(batch) => put(&mut self.batches, change, batch),
        }
    }

    /// Pods of a pool, by its UID.
    pub fn pods_of(&self, owner: &str) -> impl Iterator<Item = &Pod> {
        self.pods.values().filter(move |pod| pod.owner_references().iter().any(|o| o.uid == owner))
    }
}

/// A rule that was broken, where and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Name of the rule.
    pub rule: &'static str,
    /// What was seen.
    pub what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

/// What was learnt from the history so far.
#[derive(Default)]
struct Past {
    /// The BatchSandbox that held each pod first.
    holders: BTreeMap<String, String>,
    /// The highest `poolMax` each pool has had.
    highest: BTreeMap<String, i32>,
    /// The epochs each BatchSandbox has used.
    epochs: BTreeMap<String, i64>,
}

/// Reads a whole history. `accepted` is what the daemons know.
pub fn check(history: &[Arc<Change>], accepted: &[Accepted]) -> Result<View, Violation> {
    let mut view = View::default();
    let mut past = Past::default();
    for change in history {
        let created = match &change.object {
            Object::Pod(_) => !view.pods.contains_key(&change.uid) && !change.gone,
            _ => false,
        };
        view.apply(change);
        let found = match &change.object {
            Object::Batch(batch) if !change.gone => one_holder(&mut past, &change.uid, batch),
            Object::Pool(pool) => {
                let highest = past.highest.entry(change.uid.clone()).or_default();
                *highest = (*highest).max(pool.spec.capacity_spec.pool_max);
                Ok(())
            }
            Object::Pod(pod) if created => within_pool_max(&past, &view, pod),
            _ => Ok(()),
        };
        found
            .map_err(|v| Violation { what: format!("version {}, {:?}: {}", change.version, change.at, v.what), ..v })?;
    }
    one_owner(accepted)?;
    Ok(view)
}

/// A pod is granted to one BatchSandbox, ever: whoever had it may have run code in it.
fn one_holder(past: &mut Past, uid: &str, batch: &BatchSandbox) -> Result<(), Violation> {
    let Some(status) = &batch.status else { return Ok(()) };
    for grant in &status.grants {
        let holder = past.holders.entry(grant.pod_uid.clone()).or_insert_with(|| uid.to_owned());
        if holder != uid {
            return Err(Violation {
                rule: "a pod has one holder",
                what: format!("pod {} was {holder}'s and is granted to {}", grant.pod, batch.name_any()),
            });
        }
        let newest = past.epochs.entry(grant.pod_uid.clone()).or_insert(grant.epoch);
        if grant.epoch != *newest {
            return Err(Violation {
                rule: "a grant keeps its epoch",
                what: format!("pod {} has epoch {} and had {newest}", grant.pod, grant.epoch),
            });
        }
    }
    let held: Vec<_> = status.grants.iter().filter(|g| g.state.holds()).collect();
    for grant in &held {
        if held.iter().filter(|other| other.index == grant.index && other.state != GrantState::Releasing).count() > 1 {
            return Err(Violation {
                rule: "a replica has one pod",
                what: format!("{} holds two pods for index {}", batch.name_any(), grant.index),
            });
        }
    }
    let claimed = held.iter().filter(|g| g.state == GrantState::Claimed).count();
    if batch.spec.pool_ref.is_some() && usize::try_from(status.ready).unwrap_or(0) > claimed {
        return Err(Violation {
            rule: "ready means claimed",
            what: format!("{} says {} ready and has claimed {claimed}", batch.name_any(), status.ready),
        });
    }
    Ok(())
}

/// No creation takes a pool above the highest `poolMax` it has had: a change of the spec reaches the controller late.
fn within_pool_max(past: &Past, view: &View, pod: &Pod) -> Result<(), Violation> {
    let Some(owner) = pod.owner_references().iter().find(|o| o.kind == "Pool") else { return Ok(()) };
    let total = view.pods_of(&owner.uid).count();
    let most = past.highest.get(&owner.uid).copied().unwrap_or(i32::MAX);
    if total > usize::try_from(most).unwrap_or(0) {
        return Err(Violation {
            rule: "a pool stays within poolMax",
            what: format!("{} is pod {total} of {}, whose poolMax is {most}", pod.name_any(), owner.name),
        });
    }
    if !pod.labels().contains_key(labels::POOL_REVISION) {
        return Err(Violation { rule: "a pool's pod has its revision", what: pod.name_any() });
    }
    Ok(())
}

/// No pod has run code of two sandboxes.
fn one_owner(accepted: &[Accepted]) -> Result<(), Violation> {
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    for claim in accepted {
        let owner = owners.entry(&claim.pod).or_insert(&claim.sandbox);
        if *owner != claim.sandbox {
            return Err(Violation {
                rule: "a pod runs code of one sandbox",
                what: format!("pod {} was claimed by {owner} and by {}", claim.pod, claim.sandbox),
            });
        }
    }
    Ok(())
}
