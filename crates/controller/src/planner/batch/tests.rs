//! The plan of a BatchSandbox, step by step, without an API.

use std::collections::HashMap;
use std::sync::Arc;

use api_types::crd::BatchPhase;
use serde_json::json;

use super::*;
use crate::world::Shortage;

const NOW: i64 = 1_800_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn pod(uid: &str) -> PodView {
    let object = serde_json::from_value(json!({
        "metadata": {"name": uid, "namespace": "d", "uid": uid, "resourceVersion": "1"},
        "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 44772}]}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}}))
    .unwrap();
    PodView::of(&object).unwrap()
}

fn snapshot(spec: serde_json::Value, pods: &[&str]) -> BatchSnapshot {
    let object = serde_json::from_value(json!({
        "apiVersion": "sandbox.opensandbox.io/v1alpha1", "kind": "BatchSandbox",
        "metadata": {"name": "s", "namespace": "d", "uid": "s-uid", "generation": 1, "creationTimestamp": at(NOW).to_string(),
            "finalizers": [finalizers::POOL_ALLOCATION]},
        "spec": spec}))
    .unwrap();
    BatchSnapshot {
        now: at(NOW),
        steady: Instant::now(),
        batch: Arc::new(object),
        uid: "s-uid".into(),
        pods: pods.iter().map(|p| (Uid::from(*p), pod(p))).collect(),
        reserved: pods.iter().map(|p| Uid::from(*p)).collect(),
        own: Vec::new(),
        shortage: None,
        pool_trouble: None,
        claims: HashMap::default(),
        entrypoints: HashMap::default(),
        tasks: HashMap::default(),
        inherited: None,
        refusal: None,
        epitaphs: HashMap::default(),
        times: crate::world::Times::default(),
    }
}

fn settings() -> Settings {
    Settings { daemon_key: "k".into() }
}

/// Takes over a planned status, as the API's answer would.
fn store(s: &mut BatchSnapshot, status: &BatchSandboxStatus) {
    let mut batch = (*s.batch).clone();
    batch.status = Some(status.clone());
    s.batch = Arc::new(batch);
    s.reserved.retain(|p| status.grants.iter().all(|g| *g.pod_uid != **p));
}

fn status_of(plan: &BatchPlan) -> BatchSandboxStatus {
    let status = plan.actions.iter().find_map(|a| match a {
        Action::Status(status) => Some((**status).clone()),
        _ => None,
    });
    status.unwrap_or_else(|| panic!("no status in {:?}", plan.actions))
}

#[test]
fn promises_become_grants_claims_ready_and_annotations_in_turn() {
    let mut s = snapshot(json!({"poolRef": "p", "replicas": 2}), &["a", "b"]);
    let granted = status_of(&plan(&s, &settings()));
    assert_eq!(granted.grants.iter().map(|g| (g.index, g.epoch)).collect::<Vec<_>>(), [(0, 1), (1, 2)]);
    assert_eq!((granted.phase, granted.ready), (Some(BatchPhase::Pending), 0));
    store(&mut s, &granted);

    let claims = plan(&s, &settings()).actions;
    assert_eq!(claims.len(), 2, "{claims:?}");
    assert!(claims.iter().all(|a| matches!(a, Action::Claim { .. })));
    s.claims.insert("a".into(), (1, ClaimSeen::Accepted(None)));
    s.claims.insert("b".into(), (2, ClaimSeen::InFlight));
    assert!(plan(&s, &settings()).actions.is_empty(), "one write for all claims");
    s.claims.insert("b".into(), (2, ClaimSeen::Accepted(None)));
    let ready = status_of(&plan(&s, &settings()));
    assert_eq!((ready.phase, ready.ready), (Some(BatchPhase::Succeed), 2));
    store(&mut s, &ready);

    let last = plan(&s, &settings()).actions;
    assert!(last.iter().any(|a| matches!(a, Action::Annotate(m) if m.contains_key(annotations::ENDPOINTS))));
    assert!(last.iter().any(|a| matches!(a, Action::Mark(_))));
}

#[test]
fn at_rest_nothing_is_planned() {
    let mut s = snapshot(json!({"poolRef": "p", "replicas": 1}), &["a"]);
    let granted = status_of(&plan(&s, &settings()));
    store(&mut s, &granted);
    s.claims.insert("a".into(), (1, ClaimSeen::Accepted(None)));
    let ready = status_of(&plan(&s, &settings()));
    store(&mut s, &ready);
    let Some(Action::Annotate(annotations)) =
        plan(&s, &settings()).actions.into_iter().find(|a| matches!(a, Action::Annotate(_)))
    else {
        panic!("no annotations");
    };
    let mut batch = (*s.batch).clone();
    batch.metadata.annotations = Some(annotations);
    s.batch = Arc::new(batch);
    s.pods.get_mut("a").unwrap().claimed_by = Some("s-uid".into());
    s.now = at(NOW + 1_000);
    assert_eq!(plan(&s, &settings()).actions, []);
}

#[test]
fn a_young_sandbox_waits_quietly_and_an_old_one_says_why() {
    let mut s = snapshot(json!({"poolRef": "p", "replicas": 1}), &[]);
    s.shortage = Some(Shortage::Starting);
    let quiet = plan(&s, &settings());
    assert_eq!((quiet.actions, quiet.wake_at), (vec![], Some(at(NOW + 1))));
    s.now = at(NOW + 1);
    let status = status_of(&plan(&s, &settings()));
    let pending = status.conditions.iter().find(|c| c.kind == "PoolAllocationPending").unwrap();
    assert_eq!(pending.reason.as_deref(), Some("PoolHasNoReadyPods"));
    s.now = at(NOW);
    s.shortage = Some(Shortage::NoPool);
    assert!(
        plan(&s, &settings()).actions.iter().any(|a| matches!(a, Action::Status(_))),
        "a hard reason is told at once"
    );
}

#[test]
fn five_lost_claims_in_a_row_are_the_end() {
    let mut s = snapshot(json!({"poolRef": "p", "replicas": 1}), &[]);
    for n in 1..=5 {
        let uid: Uid = format!("p{n}").as_str().into();
        s.pods.insert(uid.clone(), pod(&uid));
        s.reserved = vec![uid.clone()];
        assert_eq!(need(&s.batch), 1, "attempt {n}");
        let granted = status_of(&plan(&s, &settings()));
        store(&mut s, &granted);
        let epoch = granted.grants.iter().map(|g| g.epoch).max().unwrap();
        s.claims.insert(uid.clone(), (epoch, ClaimSeen::Refused(Trouble::new("ClaimFailed", "no answer"))));
        let lost = status_of(&plan(&s, &settings()));
        store(&mut s, &lost);
    }
    assert_eq!(need(&s.batch), 0);
    let status = s.batch.status.clone().unwrap();
    assert_eq!(status.phase, Some(BatchPhase::Failed));
    assert!(status.conditions.iter().any(|c| c.kind == "PodFailed" && c.reason.as_deref() == Some("ClaimFailed")));
}

#[test]
fn a_promise_that_is_not_wanted_any_more_is_given_back() {
    let s = snapshot(json!({"poolRef": "p", "replicas": 1}), &["a", "b"]);
    let plan = plan(&s, &settings());
    assert_eq!(status_of(&plan).grants.len(), 1);
    assert!(plan.actions.iter().any(|a| matches!(a, Action::ReturnReserved(pods) if pods.len() == 1)));
}

#[test]
fn an_expired_sandbox_is_deleted_and_nothing_else() {
    let mut s = snapshot(json!({"poolRef": "p", "replicas": 1, "expireTime": at(NOW + 5).to_string()}), &["a"]);
    assert_eq!(plan(&s, &settings()).wake_at, Some(at(NOW + 5)));
    s.now = at(NOW + 5);
    let actions = plan(&s, &settings()).actions;
    assert!(matches!(actions.as_slice(), [Action::Delete { .. }]), "{actions:?}");
}

#[test]
fn a_deleted_sandbox_lets_its_finalizer_go_only_after_its_pods() {
    let mut s = snapshot(json!({"poolRef": "p", "replicas": 1}), &["a"]);
    let granted = status_of(&plan(&s, &settings()));
    store(&mut s, &granted);
    let mut batch = (*s.batch).clone();
    batch.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(NOW)));
    s.batch = Arc::new(batch);
    let first = plan(&s, &settings()).actions;
    assert!(matches!(first.as_slice(), [Action::DeletePod { .. }]), "{first:?}");
    s.pods.get_mut("a").unwrap().deleting = true;
    let second = plan(&s, &settings()).actions;
    let [Action::Note(last), Action::Finalizers(left)] = second.as_slice() else { panic!("{second:?}") };
    assert_eq!((last.reason.as_str(), left.len()), ("Deleted", 0));
}
