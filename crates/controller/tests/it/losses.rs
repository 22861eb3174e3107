//! Pods that are lost, and what is left of them.

use api_types::crd::{BatchPhase, BatchSandbox};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::platform::Platform;

fn failed(batch: &BatchSandbox) -> bool {
    batch.status.as_ref().is_some_and(|s| s.phase == Some(BatchPhase::Failed))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sandboxs_pod_stays_to_be_looked_at_until_the_sandbox_goes() {
    let platform = Platform::start().await;
    platform.pool("p", [1, 1, 0, 4]).await;
    platform.available("p", 1).await;
    platform.create("s", json!({"poolRef": "p", "replicas": 1})).await;
    let pod = platform.ready("s", 1).await.status.unwrap().grants[0].pod.clone();
    let killed = json!({"status": {"containerStatuses": [{"name": "sandbox", "image": "i", "imageID": "", "ready": true,
        "restartCount": 1, "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]}});
    platform.pods().patch_status(&pod, &PatchParams::default(), &Patch::Merge(&killed)).await.unwrap();
    platform.batch("s", "failed", failed).await;
    // The pool goes on, and the next one gets another pod.
    platform.create("next", json!({"poolRef": "p", "replicas": 1})).await;
    assert_ne!(platform.ready("next", 1).await.status.unwrap().grants[0].pod, pod);
    platform.available("p", 1).await;
    let kept = platform.pods().get(&pod).await.unwrap();
    assert_eq!(kept.metadata.deletion_timestamp, None);
    let look = || async {
        let status = platform.pools().get("p").await.unwrap().status.unwrap_or_default();
        (status.allocated == 2 && status.available == 1).then_some(())
    };
    platform.until("it counts as held", look).await;
    platform.delete("s").await;
    let look = || async { platform.pods().get_opt(&pod).await.unwrap().is_none().then_some(()) };
    platform.until("the pod has gone with its sandbox", look).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_pods_of_a_silent_node_are_replaced_and_a_sandbox_there_says_so() {
    let platform = Platform::start().await;
    platform.pool("p", [2, 2, 0, 9]).await;
    platform.available("p", 2).await;
    platform.create("s", json!({"poolRef": "p", "replicas": 1})).await;
    let held = platform.ready("s", 1).await.status.unwrap().grants[0].pod.clone();
    platform.available("p", 2).await;
    // As the node lifecycle controller does it: only Ready is taken away.
    let silent = json!({"status": {"conditions": [
        {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        {"type": "ContainersReady", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    let there: Vec<String> = platform.all_pods().await.iter().map(|p| p.name_any()).collect();
    for pod in &there {
        platform.pods().patch_status(pod, &PatchParams::default(), &Patch::Merge(&silent)).await.unwrap();
    }
    let says =
        |b: &BatchSandbox| b.status.iter().flat_map(|s| &s.conditions).any(|c| c.reason.as_deref() == Some("NodeLost"));
    platform.batch("s", "says that its node is lost", says).await;
    let look = || async {
        let now: Vec<String> = platform.all_pods().await.iter().map(|p| p.name_any()).collect();
        let idle_gone = there.iter().filter(|p| **p != held).all(|p| !now.contains(p));
        (idle_gone && now.contains(&held)).then_some(())
    };
    platform.until("idle pods are replaced", look).await;
    platform.available("p", 2).await;
    // Kubernetes gives up: the pod is evicted by taint.
    let evicted = json!({"status": {"conditions": [{"type": "DisruptionTarget", "status": "True",
        "reason": "DeletionByTaintManager", "message": "Taint manager: deleting due to NoExecute taint"}]}});
    platform.pods().patch_status(&held, &PatchParams::default(), &Patch::Merge(&evicted)).await.unwrap();
    platform.pods().delete(&held, &DeleteParams::default()).await.unwrap();
    let batch = platform.batch("s", "failed", failed).await;
    let condition = batch.status.unwrap().conditions.into_iter().find(|c| c.kind == "PodFailed").unwrap();
    assert_eq!(condition.reason.as_deref(), Some("DeletionByTaintManager"));
}
