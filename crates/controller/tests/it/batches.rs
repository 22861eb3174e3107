//! Batches: many pods, tasks, pods of their own.

use api_types::crd::{BatchPhase, BatchSandbox, GrantState};
use api_types::names::{annotations, finalizers, labels};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::fake::NODE;
use crate::platform::Platform;

fn counters(batch: &BatchSandbox) -> (i32, i32, i32, i32, i32) {
    let s = batch.status.clone().unwrap_or_default();
    (s.task_running, s.task_succeed, s.task_failed, s.task_pending, s.task_unknown)
}

fn executor() -> serde_json::Value {
    json!([{"name": "sandbox", "image": "i"}, {"name": "te", "image": "task-executor:1", "ports": [{"containerPort": 5758}]}])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_any_size_costs_four_writes() {
    let platform = Platform::start().await;
    platform.pool("p", [20, 20, 0, 40]).await;
    platform.available("p", 20).await;
    platform.create("b", json!({"poolRef": "p", "replicas": 20})).await;
    let batch = platform.batch("b", "annotated", |b| b.annotations().contains_key(annotations::ENDPOINTS)).await;
    let status = batch.status.unwrap();
    assert_eq!((status.ready, status.allocated, status.grants.len()), (20, 20, 20));
    platform.written("batchsandboxes", "b", 3).await;
    platform.create("later", json!({"poolRef": "p", "replicas": 1})).await;
    platform.ready("later", 1).await;
    assert_eq!(platform.writes("batchsandboxes", "b"), 3, "three after the create, and no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_tasks_of_which_one_fails_are_counted_exactly_and_give_their_pods_back() {
    let platform = Platform::start().await;
    platform.pool_of("p", [20, 20, 0, 40], executor()).await;
    platform.available("p", 20).await;
    let spec = json!({"poolRef": "p", "replicas": 20, "taskResourcePolicyWhenCompleted": "Release",
        "taskTemplate": {"spec": {"process": {"command": ["work"], "env": [{"name": "K", "value": "all"}]}}},
        "shardTaskPatches": [{"spec": {"process": {"env": [{"name": "K", "value": "first"}]}}}]});
    platform.create("b", spec).await;
    let batch = platform.batch("b", "all run", |b| counters(b) == (20, 0, 0, 0, 0)).await;
    assert!(batch.finalizers().iter().any(|f| f == finalizers::TASK_CLEANUP));
    for grant in &batch.status.as_ref().unwrap().grants {
        let tasks = platform.daemons.of(&grant.pod_uid).tasks;
        assert_eq!(tasks.len(), 1);
        assert_eq!(tasks[0].name, format!("b-{}", grant.index));
        let value = &tasks[0].process.as_ref().unwrap().env[0].value;
        assert_eq!(value, if grant.index == 0 { "first" } else { "all" });
    }
    for index in 0..20 {
        platform.daemons.end_task(&format!("b-{index}"), i32::from(index == 7));
    }
    let released = |b: &BatchSandbox| {
        let all = b.status.iter().flat_map(|s| &s.grants).all(|g| g.state == GrantState::Released);
        all && b.annotations().contains_key(annotations::ALLOC_RELEASED)
    };
    let batch = platform.batch("b", "all released", released).await;
    assert_eq!(counters(&batch), (0, 19, 1, 0, 0));
    assert_eq!(batch.status.as_ref().unwrap().grants.len(), 20, "a finished task is not replaced");
    platform.available("p", 20).await;
    platform.delete("b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_stops_tasks_first() {
    let platform = Platform::start().await;
    platform.pool_of("p", [1, 1, 0, 2], executor()).await;
    platform.available("p", 1).await;
    let spec = json!({"poolRef": "p", "replicas": 1, "taskTemplate": {"spec": {"process": {"command": ["work"]}}}});
    platform.create("b", spec).await;
    let batch = platform.batch("b", "runs", |b| counters(b).0 == 1).await;
    let pod = batch.status.unwrap().grants[0].pod_uid.clone();
    platform.delete("b").await;
    assert!(platform.daemons.of(&pod).tasks.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn more_and_fewer_replicas_are_followed() {
    let platform = Platform::start().await;
    platform.pool("p", [6, 6, 0, 20]).await;
    platform.available("p", 6).await;
    platform.create("b", json!({"poolRef": "p", "replicas": 2})).await;
    platform.ready("b", 2).await;
    for n in [5, 1] {
        let patch = json!({"spec": {"replicas": n}});
        platform.batches().patch("b", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        let batch = platform.ready("b", n).await;
        let held: Vec<_> = batch
            .status
            .unwrap()
            .grants
            .into_iter()
            .filter(|g| g.state == GrantState::Claimed)
            .map(|g| g.index)
            .collect();
        assert_eq!(held, (0..n).collect::<Vec<_>>(), "the highest indexes go first");
    }
    platform.available("p", 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_gets_another_pod_for_a_lost_one() {
    let platform = Platform::start().await;
    platform.pool("p", [4, 4, 0, 20]).await;
    platform.available("p", 4).await;
    platform.create("b", json!({"poolRef": "p", "replicas": 3})).await;
    let lost = platform.ready("b", 3).await.status.unwrap().grants[1].clone();
    platform.pods().delete(&lost.pod, &DeleteParams::default()).await.unwrap();
    let replaced = |b: &BatchSandbox| {
        let status = b.status.clone().unwrap_or_default();
        status.ready == 3 && status.grants.iter().any(|g| g.pod_uid == lost.pod_uid && g.state == GrantState::Lost)
    };
    let batch = platform.batch("b", "whole again", replaced).await;
    let mut held: Vec<_> =
        batch.status.unwrap().grants.into_iter().filter(|g| g.state == GrantState::Claimed).map(|g| g.index).collect();
    held.sort_unstable();
    assert_eq!(held, [0, 1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_others_ask_for_is_done_and_only_for_pods_held() {
    let platform = Platform::start().await;
    platform.pool("p", [3, 3, 0, 20]).await;
    platform.available("p", 3).await;
    platform.create("other", json!({"poolRef": "p", "replicas": 1})).await;
    let foreign = platform.ready("other", 1).await.status.unwrap().grants[0].pod.clone();
    platform.create("b", json!({"poolRef": "p", "replicas": 2})).await;
    let mine = platform.ready("b", 2).await.status.unwrap().grants[0].pod.clone();
    let asked = json!({"pods": [mine, foreign]}).to_string();
    let patch = json!({"metadata": {"annotations": {annotations::ALLOC_RELEASE: asked}}});
    platform.batches().patch("b", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    let batch = platform.ready("b", 1).await;
    assert_eq!(batch.status.unwrap().grants.iter().filter(|g| g.state == GrantState::Claimed).count(), 1);
    let other = platform.batches().get("other").await.unwrap().status.unwrap();
    assert_eq!(other.grants[0].state, GrantState::Claimed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_with_a_template_makes_claims_and_replaces_its_own_pods() {
    let platform = Platform::start().await;
    let containers = json!([{"name": "c", "image": "i", "ports": [{"containerPort": 44772}]}]);
    let spec = json!({"replicas": 3, "claim": {"env": {"A": "b"}},
        "template": {"spec": {"nodeName": NODE, "containers": containers}},
        "shardPatches": [{"metadata": {"labels": {"shard": "zero"}}}]});
    let created = platform.create("b", spec).await;
    let batch = platform.ready("b", 3).await;
    assert_eq!(batch.status.as_ref().unwrap().phase, Some(BatchPhase::Succeed));
    let pods = platform.all_pods().await;
    let mut names: Vec<_> = pods.iter().map(|p| p.name_any()).collect();
    names.sort();
    assert_eq!(names, ["b-0", "b-1", "b-2"]);
    for pod in &pods {
        assert_eq!(pod.labels()[labels::BATCH_NAME], "b");
        assert_eq!(pod.labels().contains_key("shard"), pod.name_any() == "b-0");
        assert_eq!(pod.owner_references()[0].uid, created.uid().unwrap());
        assert_eq!(platform.daemons.of(&pod.uid().unwrap()).claim.unwrap().env["A"], "b");
    }
    let before = pods.iter().find(|p| p.name_any() == "b-1").and_then(|p| p.uid()).unwrap();
    platform.pods().delete("b-1", &DeleteParams::default()).await.unwrap();
    let replaced = |b: &BatchSandbox| {
        let grants = b.status.clone().unwrap_or_default().grants;
        grants.iter().any(|g| g.pod == "b-1" && g.pod_uid != before && g.state == GrantState::Claimed)
    };
    platform.batch("b", "has a new pod 1", replaced).await;
    let patch = json!({"spec": {"replicas": 1}});
    platform.batches().patch("b", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    let look = || async { (platform.all_pods().await.len() == 1).then_some(()) };
    platform.until("one pod is left", look).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_cannot_start_fails_with_the_kubelets_words_and_recovers() {
    let platform = Platform::start().await;
    let template = json!({"metadata": {"annotations": {"test/never-ready": ""}},
        "spec": {"nodeName": NODE, "initContainers": [{"name": "init", "image": "none"}], "containers": [{"name": "c", "image": "i"}]}});
    platform.create("b", json!({"replicas": 1, "template": template})).await;
    let look = || async { platform.pods().get_opt("b-0").await.unwrap() };
    platform.until("the pod exists", look).await;
    let waiting = json!({"waiting": {"reason": "ErrImagePull", "message": "none: not found"}});
    let status = |state: serde_json::Value| {
        json!({"status": {"phase": "Pending", "initContainerStatuses": [
            {"name": "init", "image": "none", "imageID": "", "ready": false, "restartCount": 0, "state": state}]}})
    };
    let patch = status(waiting);
    platform.pods().patch_status("b-0", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    let failed =
        platform.batch("b", "failed", |b| b.status.as_ref().is_some_and(|s| s.phase == Some(BatchPhase::Failed))).await;
    let condition = failed.status.unwrap().conditions.into_iter().find(|c| c.kind == "PodFailed").unwrap();
    assert_eq!(condition.reason.as_deref(), Some("ErrImagePull"));
    assert!(condition.message.unwrap().contains("not found"));
    let patch = json!({"status": {"phase": "Running", "podIP": "10.9.9.9", "initContainerStatuses": null, "conditions": [
        {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    platform.pods().patch_status("b-0", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    let batch = platform.ready("b", 1).await;
    assert_eq!(batch.status.unwrap().phase, Some(BatchPhase::Succeed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spec_that_cannot_be_used_says_so_by_field() {
    let platform = Platform::start().await;
    for (name, spec, words) in [
        ("none", json!({"replicas": 1}), "neither spec.poolRef nor spec.template"),
        ("star", json!({"replicas": 1, "poolRef": "*"}), "spec.poolRef"),
        (
            "task",
            json!({"replicas": 1, "poolRef": "p", "taskTemplate": {"spec": {}}}),
            "spec.taskTemplate.spec.process",
        ),
        ("env", json!({"replicas": 1, "poolRef": "p", "claim": {"env": {"A=B": "c"}}}), "spec.claim.env"),
    ] {
        platform.create(name, spec).await;
        let batch = platform
            .batch(name, "told", |b| b.status.iter().flat_map(|s| &s.conditions).any(|c| c.kind == "InvalidSpec"))
            .await;
        let condition = batch.status.unwrap().conditions.into_iter().find(|c| c.kind == "InvalidSpec").unwrap();
        assert!(condition.message.as_ref().unwrap().contains(words), "{condition:?}");
        platform.delete(name).await;
    }
}
