//! Taking over from a published controller: live pods stay, what was stuck goes, nobody gets a used pod.

use std::collections::BTreeMap;

use api_types::crd::{BatchPhase, BatchSandbox, GrantState};
use kube::ResourceExt as _;
use serde_json::json;

use crate::fixtures;
use crate::platform::Platform;

/// Pods of the cluster by name, those on their way out apart.
async fn pods(platform: &Platform) -> BTreeMap<String, String> {
    let pods = platform.all_pods().await.into_iter().filter(|p| p.metadata.deletion_timestamp.is_none());
    pods.map(|p| (p.name_any(), p.uid().unwrap_or_default())).collect()
}

fn states(batch: &BatchSandbox) -> Vec<(i32, String, GrantState)> {
    let grants = batch.status.iter().flat_map(|s| &s.grants);
    grants.map(|g| (g.index, g.pod.clone(), g.state)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_a_published_controller_are_taken_over() {
    let mut platform = Platform::bare().await;
    let uids = fixtures::upstream(&platform.client).await;
    let running = || async {
        let pods = platform.all_pods().await;
        pods.iter().all(|p| p.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Running"))).then_some(())
    };
    platform.until("the pods of before run", running).await;
    platform.start_controller();

    // What was stuck goes, and the pod of the last with it.
    for name in ["stuck-released", "stuck-poolless", "stuck-paused", "leaving"] {
        platform.gone(name).await;
    }
    let taken = |b: &BatchSandbox| b.status.as_ref().is_some_and(|s| !s.grants.is_empty() && s.phase.is_some());
    let alive = platform.batch("alive", "taken over", taken).await;
    assert_eq!(states(&alive), [(0, "warm-aaaaa".to_owned(), GrantState::Claimed)]);
    assert_eq!(alive.status.as_ref().unwrap().phase, Some(BatchPhase::Succeed));
    assert_eq!(alive.status.as_ref().unwrap().grants[0].pod_uid, uids["Pod/warm-aaaaa"]);
    let pair = platform.batch("pair", "taken over", taken).await;
    let wanted = [
        ("warm-bbbbb", GrantState::Claimed),
        ("warm-ccccc", GrantState::Released),
        ("warm-eeeee", GrantState::Claimed),
    ];
    let wanted: Vec<_> = wanted.iter().zip(0..).map(|((pod, state), i)| (i, (*pod).to_owned(), *state)).collect();
    assert_eq!(states(&pair), wanted, "who was released is not replaced");
    let heir = platform.batch("heir", "taken over", taken).await;
    assert_eq!(states(&heir), [(0, "warm-ggggg".to_owned(), GrantState::Claimed)]);
    let former = platform.batch("former", "taken over", taken).await;
    assert_eq!(states(&former), [(0, "warm-ggggg".to_owned(), GrantState::Released)]);
    let returned = |b: &BatchSandbox| states(b) == [(0, "warm-hhhhh".to_owned(), GrantState::Released)];
    platform.batch("returning", "given back", returned).await;
    let working = platform
        .batch("working", "its task is followed", |b| b.status.as_ref().is_some_and(|s| s.task_running == 1))
        .await;
    assert_eq!(states(&working), [(0, "warm-iiiii".to_owned(), GrantState::Claimed)]);
    assert_eq!(platform.daemons.of(&uids["Pod/warm-iiiii"]).tasks[0].name, "working-0");
    let own = |b: &BatchSandbox| states(b).iter().filter(|(_, _, s)| *s == GrantState::Claimed).count() == 2;
    let own = platform.batch("own", "taken over", own).await;
    assert_eq!(own.status.unwrap().phase, Some(BatchPhase::Succeed));
    let malformed = |b: &BatchSandbox| {
        let conditions = b.status.iter().flat_map(|s| &s.conditions);
        conditions.into_iter().any(|c| c.reason.as_deref() == Some("MalformedAllocation"))
    };
    let broken = platform.batch("broken", "says so", malformed).await;
    assert_eq!(broken.status.unwrap().phase, Some(BatchPhase::Succeed), "its pod may well run on");

    // Those who come now get the idle pod of before or new ones, never one that has an owner or had one.
    for name in ["new-1", "new-2"] {
        platform.create(name, json!({"poolRef": "warm", "replicas": 1})).await;
    }
    platform.create("new-torn", json!({"poolRef": "torn", "replicas": 1})).await;
    let mut given = Vec::new();
    for name in ["new-1", "new-2", "new-torn"] {
        given.push(platform.ready(name, 1).await.status.unwrap().grants[0].pod.clone());
    }
    assert!(given.contains(&"warm-ddddd".to_owned()), "{given:?}");
    let of_before = given.iter().filter(|pod| uids.contains_key(&format!("Pod/{pod}"))).count();
    assert_eq!(of_before, 1, "{given:?}");

    let look = || async {
        let now = pods(&platform).await;
        let gone = ["warm-fffff", "warm-hhhhh", "warm-jjjjj"].iter().all(|pod| !now.contains_key(*pod));
        gone.then_some(now)
    };
    let now = platform.until("used pods are gone", look).await;
    for pod in ["warm-aaaaa", "warm-bbbbb", "warm-eeeee", "warm-ggggg", "warm-iiiii", "own-0", "own-1", "torn-aaaaa"] {
        assert_eq!(now.get(pod), uids.get(&format!("Pod/{pod}")), "{pod} is still the same pod");
    }
    assert!(!now.contains_key("paused-0"), "what was paused stays so");
    let paused = platform.batches().get("paused").await.unwrap();
    assert_eq!(paused.status.unwrap().phase, Some(BatchPhase::Paused));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_ours_is_not_taken_by_writing_its_name() {
    let platform = Platform::start().await;
    platform.pool("p", [1, 1, 0, 4]).await;
    platform.available("p", 1).await;
    let pod = platform.all_pods().await[0].name_any();
    let thief = json!({
        "apiVersion": "sandbox.opensandbox.io/v1alpha1", "kind": "BatchSandbox",
        "metadata": {"name": "thief", "annotations": {"sandbox.opensandbox.io/alloc-status": json!({"pods": [pod]}).to_string()}},
        "spec": {"poolRef": "p", "replicas": 1}});
    platform
        .batches()
        .create(&kube::api::PostParams::default(), &serde_json::from_value(thief).unwrap())
        .await
        .unwrap();
    let failed = platform
        .batch("thief", "told", |b| b.status.as_ref().is_some_and(|s| s.phase == Some(BatchPhase::Failed)))
        .await;
    assert_eq!(states(&failed), [(0, pod.clone(), GrantState::Lost)]);
    assert_eq!(failed.status.unwrap().grants[0].reason.as_deref(), Some("PodNotFound"));
    platform.create("honest", json!({"poolRef": "p", "replicas": 1})).await;
    assert_eq!(platform.ready("honest", 1).await.status.unwrap().grants[0].pod, pod);
}
