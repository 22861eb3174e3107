//! What must hold when nothing moves any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api_types::crd::{BatchPhase, BatchSandbox, ConditionStatus, Pool};
use api_types::names::labels;
use kube::ResourceExt;

use crate::history::{Change, Object};
use crate::invariants::{View, Violation};

fn broken(rule: &'static str, what: impl Into<String>) -> Result<(), Violation> {
    Err(Violation { rule, what: what.into() })
}

/// Checks a world at rest, in which every daemon answers and every pod can start.
pub fn check(view: &View) -> Result<(), Violation> {
    nothing_stuck(view)?;
    nothing_leaked(view)?;
    for batch in view.batches.values() {
        satisfied(view, batch)?;
    }
    for (uid, pool) in &view.pools {
        sized(view, uid, pool)?;
    }
    Ok(())
}

/// Of every sandbox that is gone an Event says how it ended.
pub fn remembered(history: &[Arc<Change>], view: &View, told: &BTreeSet<String>) -> Result<(), Violation> {
    let batches = history.iter().filter(|c| matches!(c.object, Object::Batch(_)));
    for gone in batches.filter(|c| !view.batches.contains_key(&c.uid)) {
        if !told.contains(&gone.uid) {
            return broken("how a sandbox ended is remembered", gone.uid.clone());
        }
    }
    Ok(())
}

fn nothing_stuck(view: &View) -> Result<(), Violation> {
    let pods = view.pods.values().filter(|p| p.metadata.deletion_timestamp.is_some()).map(ResourceExt::name_any);
    let pools = view.pools.values().filter(|p| p.metadata.deletion_timestamp.is_some()).map(ResourceExt::name_any);
    let batches = view.batches.values().filter(|b| b.metadata.deletion_timestamp.is_some()).map(ResourceExt::name_any);
    let stuck: Vec<_> = pods.chain(pools).chain(batches).collect();
    if stuck.is_empty() { Ok(()) } else { broken("what is deleted goes", stuck.join(", ")) }
}

/// Every pod has an owner that exists, and is held or was never given out.
fn nothing_leaked(view: &View) -> Result<(), Violation> {
    let mut named: BTreeMap<&str, (&BatchSandbox, bool)> = BTreeMap::new();
    for batch in view.batches.values() {
        for grant in batch.status.iter().flat_map(|s| &s.grants) {
            named.insert(&grant.pod_uid, (batch, grant.state.holds()));
        }
    }
    for (uid, pod) in &view.pods {
        let Some(owner) = pod.owner_references().iter().find(|o| o.controller == Some(true)) else { continue };
        if !view.pools.contains_key(&owner.uid) && !view.batches.contains_key(&owner.uid) {
            return broken("a pod has an owner", pod.name_any());
        }
        let claimed = pod.labels().contains_key(labels::CLAIMED_BY);
        match named.get(uid.as_str()) {
            None if claimed => return broken("a pod that was held is gone", pod.name_any()),
            // The pod of a sandbox that failed stays as evidence while the sandbox does.
            Some((batch, false)) if phase(batch) != Some(BatchPhase::Failed) => {
                return broken(
                    "a pod that was given back is gone",
                    format!("{} of {}", pod.name_any(), batch.name_any()),
                );
            }
            _ => {}
        }
    }
    for batch in view.batches.values() {
        for grant in batch.status.iter().flat_map(|s| &s.grants).filter(|g| g.state.holds()) {
            if !view.pods.contains_key(&grant.pod_uid) {
                return broken("a held pod exists", format!("{} holds {}", batch.name_any(), grant.pod));
            }
        }
    }
    Ok(())
}

fn held_by(batch: &BatchSandbox) -> usize {
    batch.status.iter().flat_map(|s| &s.grants).filter(|g| g.state.holds()).count()
}

fn phase(batch: &BatchSandbox) -> Option<BatchPhase> {
    batch.status.as_ref().and_then(|s| s.phase)
}

fn says(batch: &BatchSandbox) -> bool {
    let conditions = batch.status.iter().flat_map(|s| &s.conditions);
    conditions.into_iter().any(|c| {
        c.status == ConditionStatus::True
            && ["PoolAllocationPending", "InvalidSpec", "PodFailed"].contains(&c.kind.as_str())
    })
}

/// As many pods as replicas, all ready; or a reason that is true.
fn satisfied(view: &View, batch: &BatchSandbox) -> Result<(), Violation> {
    let name = batch.name_any();
    let Some(status) = &batch.status else { return broken("every BatchSandbox has a status", name) };
    if Some(status.observed_generation) != batch.metadata.generation {
        return broken("status is about the present spec", format!("{name}: {}", status.observed_generation));
    }
    if phase(batch) == Some(BatchPhase::Failed) {
        let told = says(batch) && status.termination.is_some();
        return if told { Ok(()) } else { broken("a failed sandbox says why", name) };
    }
    let wanted = usize::try_from(batch.spec.replicas).unwrap_or(0);
    let releases = batch.spec.task_resource_policy_when_completed == "Release" && batch.spec.task_template.is_some();
    let released = batch.annotations().contains_key(api_types::names::annotations::ALLOC_RELEASE);
    let Some(pool_name) = batch.spec.pool_ref.as_deref() else {
        let pods = view.pods_of(batch.metadata.uid.as_deref().unwrap_or_default()).count();
        return if pods == wanted || releases || released {
            Ok(())
        } else {
            broken("as many pods as replicas", format!("{name}: {pods} of {wanted}"))
        };
    };
    let held = held_by(batch);
    if held > wanted {
        return broken("no more pods than replicas", format!("{name} holds {held} of {wanted}"));
    }
    if releases {
        return Ok(());
    }
    if held == wanted {
        let ready = usize::try_from(status.ready).unwrap_or(0);
        return if ready == wanted {
            Ok(())
        } else {
            broken("what is held is ready", format!("{name}: {ready} of {wanted}"))
        };
    }
    if released {
        return Ok(());
    }
    if !says(batch) {
        return broken("who waits says why", format!("{name} holds {held} of {wanted}"));
    }
    let Some(pool) = view.pools.values().find(|p| p.name_any() == pool_name) else { return Ok(()) };
    let most = usize::try_from(pool.spec.capacity_spec.pool_max).unwrap_or(0);
    let of_pool = |b: &&BatchSandbox| b.spec.pool_ref.as_deref() == Some(pool_name);
    let taken: usize = view
        .batches
        .values()
        .filter(of_pool)
        .flat_map(|b| b.status.iter().flat_map(|s| &s.grants))
        .filter(|g| view.pods.contains_key(&g.pod_uid))
        .count();
    // Whoever is first in line and fits is served; others wait behind the first.
    let fits = |b: &&BatchSandbox| {
        let missing = usize::try_from(b.spec.replicas).unwrap_or(0).saturating_sub(held_by(b));
        taken + missing <= most
    };
    let waiting = view.batches.values().filter(of_pool).filter(|b| says(b) && phase(b) != Some(BatchPhase::Failed));
    if waiting.clone().count() > 0 && waiting.clone().all(|b| fits(&b)) {
        return broken("who fits is served", format!("{name} waits though {taken} of {most} are taken"));
    }
    Ok(())
}

/// The size is what the four numbers ask for, and the status says what there is.
fn sized(view: &View, uid: &str, pool: &Pool) -> Result<(), Violation> {
    let name = pool.name_any();
    let pods: Vec<_> = view.pods_of(uid).collect();
    let held = |pod: &&&k8s_openapi::api::core::v1::Pod| {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        view.batches.values().flat_map(|b| b.status.iter().flat_map(|s| &s.grants)).any(|g| g.pod_uid == uid)
    };
    let allocated = pods.iter().filter(held).count();
    let revision = pool.status.as_ref().map(|s| s.revision.as_str()).unwrap_or_default();
    let idle_pods = pods.iter().filter(|pod| !held(pod));
    for pod in idle_pods {
        if pod.labels().get(labels::POOL_REVISION).map(String::as_str) != Some(revision) {
            return broken("free pods are of the present revision", format!("{} of {name}", pod.name_any()));
        }
        if pod.labels().contains_key(labels::EVICT) {
            return broken("free pods that are to be evicted go", format!("{} of {name}", pod.name_any()));
        }
    }
    let idle = pods.len() - allocated;
    let c = pool.spec.capacity_spec;
    let [buffer_max, pool_min, pool_max] =
        [c.buffer_max, c.pool_min, c.pool_max].map(|n| usize::try_from(n).unwrap_or(0));
    // Pods that a batch waits for, until it can have all of them, are idle too.
    let waited_for: usize = view
        .batches
        .values()
        .filter(|b| b.spec.pool_ref.as_deref() == Some(name.as_str()) && phase(b) != Some(BatchPhase::Failed))
        .map(|b| usize::try_from(b.spec.replicas).unwrap_or(0).saturating_sub(held_by(b)))
        .sum();
    if idle > buffer_max.max(pool_min) + waited_for {
        return broken("no more idle pods than asked for", format!("{name}: {idle} idle, {allocated} held, {c:?}"));
    }
    let least = usize::try_from(c.buffer_min).unwrap_or(0).min(buffer_max).min(pool_max.saturating_sub(allocated));
    let at_least = least.max(pool_min.min(pool_max).saturating_sub(allocated));
    if idle < at_least {
        return broken("as many idle pods as asked for", format!("{name}: {idle} idle, {allocated} held, {c:?}"));
    }
    let Some(status) = &pool.status else { return broken("every Pool has a status", name) };
    let seen = (pods.len(), idle);
    let said = (usize::try_from(status.total).unwrap_or(0), usize::try_from(status.available).unwrap_or(0));
    if seen != said {
        return broken(
            "a pool's status counts its pods",
            format!("{name}: (total, available) {seen:?}, status {said:?}"),
        );
    }
    Ok(())
}
