//! Sandboxes from a pool, one pod each.

use std::collections::HashSet;

use api_types::auth::TokenSecret;
use api_types::crd::{BatchPhase, BatchSandbox, Condition, GrantState};
use api_types::names::{annotations, labels};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::platform::Platform;

fn condition(batch: &BatchSandbox, kind: &str) -> Option<Condition> {
    batch.status.as_ref()?.conditions.iter().find(|c| c.kind == kind).cloned()
}

fn phase(batch: &BatchSandbox) -> Option<BatchPhase> {
    batch.status.as_ref()?.phase
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_costs_four_writes_and_the_pod_knows_its_owner() {
    let platform = Platform::start().await;
    platform.pool("p", [3, 3, 0, 10]).await;
    platform.available("p", 3).await;
    let spec = json!({"poolRef": "p", "replicas": 1, "claim": {"env": {"A": "b"}, "entrypoint": ["sleep", "9"]}});
    let created = platform.create("s", spec).await;
    let batch = platform.batch("s", "annotated", |b| b.annotations().contains_key(annotations::ENDPOINTS)).await;
    let status = batch.status.clone().unwrap();
    assert_eq!((status.phase, status.ready, status.replicas), (Some(BatchPhase::Succeed), 1, 1));
    let grant = &status.grants[0];
    assert_eq!(grant.state, GrantState::Claimed);
    let claim = platform.daemons.of(&grant.pod_uid).claim.unwrap();
    assert_eq!(claim.env["A"], "b");
    assert_eq!(claim.entrypoint, ["sleep", "9"]);
    let uid = created.uid().unwrap();
    assert_eq!(
        claim.token,
        TokenSecret::new([2; 32]).execd_token(&uid.as_str().into(), &grant.pod_uid.as_str().into())
    );
    let ip = grant.pod_ip.clone().unwrap();
    assert_eq!(batch.annotations()[annotations::ENDPOINTS], format!("[\"{ip}\"]"));
    assert_eq!(
        batch.annotations()[annotations::ALLOC_STATUS],
        format!("{{\"poolRef\":\"p\",\"pods\":[\"{}\"]}}", grant.pod)
    );
    let look = || async {
        let pod = platform.pods().get(&grant.pod).await.unwrap();
        (pod.labels().get(labels::CLAIMED_BY) == Some(&uid)).then_some(())
    };
    platform.until("the pod is labelled", look).await;
    platform.available("p", 3).await;
    platform.written("batchsandboxes", "s", 3).await;
    platform.create("later", json!({"poolRef": "p", "replicas": 1})).await;
    platform.ready("later", 1).await;
    assert_eq!(platform.writes("batchsandboxes", "s"), 3, "three after the create, and no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_at_once_get_fifty_pods() {
    let platform = Platform::start().await;
    platform.pool("p", [100, 100, 0, 100]).await;
    platform.available("p", 100).await;
    let names: Vec<String> = (0..50).map(|i| format!("s{i}")).collect();
    futures::future::join_all(names.iter().map(|n| platform.create(n, json!({"poolRef": "p", "replicas": 1})))).await;
    let mut pods = HashSet::new();
    for name in &names {
        let batch = platform.ready(name, 1).await;
        let status = batch.status.unwrap();
        assert_eq!(status.grants.len(), 1);
        assert!(pods.insert(status.grants[0].pod_uid.clone()), "a pod was given twice");
        assert_eq!(platform.daemons.of(&status.grants[0].pod_uid).claim.unwrap().sandbox_id.as_str(), name);
    }
    platform.available("p", 50).await;
    assert!(platform.all_pods().await.len() <= 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_takes_the_pod_away_and_the_pool_refills() {
    let platform = Platform::start().await;
    platform.pool("p", [2, 2, 0, 4]).await;
    platform.available("p", 2).await;
    platform.create("s", json!({"poolRef": "p", "replicas": 1})).await;
    let pod = platform.ready("s", 1).await.status.unwrap().grants[0].clone();
    platform.delete("s").await;
    let look = || async {
        (!platform.all_pods().await.iter().any(|p| p.uid().as_deref() == Some(&pod.pod_uid))).then_some(())
    };
    platform.until("the used pod is gone", look).await;
    platform.available("p", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_no_capacity_waits_in_order_and_is_told_why() {
    let platform = Platform::start().await;
    platform.pool("p", [1, 1, 0, 1]).await;
    platform.available("p", 1).await;
    platform.create("first", json!({"poolRef": "p", "replicas": 1})).await;
    platform.ready("first", 1).await;
    platform.create("second", json!({"poolRef": "p", "replicas": 1})).await;
    let waits = |b: &BatchSandbox| condition(b, "PoolAllocationPending").is_some();
    let second = platform.batch("second", "waits", waits).await;
    assert_eq!(condition(&second, "PoolAllocationPending").unwrap().reason.as_deref(), Some("PoolAtCapacity"));
    assert_eq!(phase(&second), Some(BatchPhase::Pending));
    platform.create("huge", json!({"poolRef": "p", "replicas": 9})).await;
    let huge = platform.batch("huge", "waits", waits).await;
    assert_eq!(condition(&huge, "PoolAllocationPending").unwrap().reason.as_deref(), Some("ExceedsPoolMax"));
    platform.delete("first").await;
    let second = platform.ready("second", 1).await;
    assert_eq!(condition(&second, "PoolAllocationPending"), None);
    assert!(platform.all_pods().await.len() <= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_pool_is_named_and_found_when_it_comes() {
    let platform = Platform::start().await;
    platform.create("s", json!({"poolRef": "later", "replicas": 1})).await;
    let batch = platform.batch("s", "waits", |b| condition(b, "PoolAllocationPending").is_some()).await;
    assert_eq!(condition(&batch, "PoolAllocationPending").unwrap().reason.as_deref(), Some("PoolNotFound"));
    platform.pool("later", [1, 1, 0, 2]).await;
    platform.ready("s", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_refuses_is_dirty_and_another_is_granted() {
    let platform = Platform::start().await;
    platform.pool("p", [3, 3, 0, 10]).await;
    platform.available("p", 3).await;
    let addresses = platform.all_pods().await.into_iter().filter_map(|p| p.status?.pod_ip);
    platform.daemons.refuse.lock().extend(addresses);
    platform.create("s", json!({"poolRef": "p", "replicas": 1})).await;
    let status = platform.ready("s", 1).await.status.unwrap();
    let lost: Vec<_> = status.grants.iter().filter(|g| g.state == GrantState::Lost).collect();
    assert!(!lost.is_empty() && lost.len() <= 3, "{lost:?}");
    for grant in lost {
        assert_eq!(grant.reason.as_deref(), Some("Unclaimed: CLAIMED_BY_ANOTHER"));
        let look = || async {
            let pod = platform.pods().get_opt(&grant.pod).await.unwrap();
            pod.is_none_or(|p| p.metadata.deletion_timestamp.is_some()).then_some(())
        };
        platform.until("the pod that refused is deleted", look).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_pod_fails_its_sandbox_with_the_reason() {
    let platform = Platform::start().await;
    platform.pool("p", [2, 2, 0, 10]).await;
    platform.available("p", 2).await;
    for (name, status, reason) in [
        ("gone", None, "PodDeleted"),
        (
            "oom",
            Some(
                json!({"containerStatuses": [{"name": "sandbox", "image": "i", "imageID": "", "ready": true, "restartCount": 1,
            "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]}),
            ),
            "OOMKilled",
        ),
        ("evicted", Some(json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"})), "Evicted"),
    ] {
        platform.create(name, json!({"poolRef": "p", "replicas": 1})).await;
        let pod = platform.ready(name, 1).await.status.unwrap().grants[0].pod.clone();
        match status {
            None => {
                platform.pods().delete(&pod, &DeleteParams::default()).await.unwrap();
            }
            Some(status) => {
                let patch = json!({"status": status});
                platform.pods().patch_status(&pod, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
            }
        }
        let batch = platform.batch(name, "failed", |b| phase(b) == Some(BatchPhase::Failed)).await;
        let failed = condition(&batch, "PodFailed").unwrap();
        assert_eq!(failed.reason.as_deref(), Some(reason), "{failed:?}");
        assert_eq!(batch.status.unwrap().grants.len(), 1, "it is not silently replaced");
        platform.delete(name).await;
    }
    platform.available("p", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entrypoint_that_fails_is_told_with_its_last_output() {
    let platform = Platform::start().await;
    platform.daemons.exits.lock().insert("bad".into(), (3, "no such thing".into()));
    platform.daemons.exits.lock().insert("good".into(), (0, String::new()));
    platform.pool("p", [2, 2, 0, 10]).await;
    platform.create("bad", json!({"poolRef": "p", "replicas": 1, "claim": {"entrypoint": ["bad"]}})).await;
    platform.create("good", json!({"poolRef": "p", "replicas": 1, "claim": {"entrypoint": ["good"]}})).await;
    let bad = platform.batch("bad", "failed", |b| phase(b) == Some(BatchPhase::Failed)).await;
    let failed = condition(&bad, "PodFailed").unwrap();
    assert_eq!(failed.reason.as_deref(), Some("TASK_FAILED"));
    assert!(failed.message.unwrap().contains("exit code 3: no such thing"));
    let good =
        platform.batch("good", "has succeeded", |b| b.status.as_ref().is_some_and(|s| s.task_succeed == 1)).await;
    assert_eq!(phase(&good), Some(BatchPhase::Succeed));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_sandbox_goes_by_itself() {
    let platform = Platform::start().await;
    platform.pool("p", [1, 1, 0, 2]).await;
    platform.available("p", 1).await;
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(2);
    platform.create("s", json!({"poolRef": "p", "replicas": 1, "expireTime": soon.to_string()})).await;
    platform.gone("s").await;
    assert!(jiff::Timestamp::now().as_second() >= soon.as_second());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_killed_between_grant_and_claim_goes_on_where_it_was() {
    let mut platform = Platform::start().await;
    platform.pool("p", [3, 3, 0, 10]).await;
    platform.available("p", 3).await;
    platform.daemons.hang.send_replace(true);
    platform.create("s", json!({"poolRef": "p", "replicas": 1})).await;
    let granted = platform.batch("s", "granted", |b| b.status.as_ref().is_some_and(|s| !s.grants.is_empty())).await;
    platform.kill_controller();
    platform.daemons.hang.send_replace(false);
    platform.create("t", json!({"poolRef": "p", "replicas": 1})).await;
    platform.start_controller();
    let first = platform.ready("s", 1).await.status.unwrap();
    assert_eq!(first.grants.len(), 1);
    assert_eq!(first.grants[0].pod_uid, granted.status.unwrap().grants[0].pod_uid);
    let second = platform.ready("t", 1).await.status.unwrap();
    assert_ne!(first.grants[0].pod_uid, second.grants[0].pod_uid);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_without_daemons_are_marked_instead() {
    let platform = Platform::start().await;
    platform.pool_of("p", [1, 1, 0, 2], json!([{"name": "c", "image": "i"}])).await;
    let batch = platform.create("s", json!({"poolRef": "p", "replicas": 1})).await;
    let grant = platform.ready("s", 1).await.status.unwrap().grants[0].clone();
    let pod = platform.pods().get(&grant.pod).await.unwrap();
    assert_eq!(pod.labels()[labels::CLAIMED_BY], batch.uid().unwrap());
    platform.create("asks", json!({"poolRef": "p", "replicas": 1, "claim": {"env": {"A": "b"}}})).await;
    let asks = platform.batch("asks", "failed", |b| phase(b) == Some(BatchPhase::Failed)).await;
    assert_eq!(condition(&asks, "PodFailed").unwrap().reason.as_deref(), Some("ClaimRejected"));
}
