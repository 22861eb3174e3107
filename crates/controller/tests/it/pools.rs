//! Pools: their size, their templates, and what goes wrong with them.

use std::collections::HashSet;

use api_types::names::labels;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::platform::Platform;

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_fills_its_buffer_to_the_middle() {
    let platform = Platform::start().await;
    platform.pool("p", [10, 50, 10, 200]).await;
    platform.available("p", 30).await;
    let pods = platform.all_pods().await;
    assert_eq!(pods.len(), 30);
    for pod in &pods {
        assert!(pod.name_any().starts_with("p-"));
        assert_eq!(pod.labels()[labels::POOL_NAME], "p");
        let env = pod.spec.as_ref().unwrap().containers[0].env.clone().unwrap();
        assert!(env.iter().any(|e| e.name == "OPENSANDBOX_DAEMON_KEY"));
    }
    let status = platform.pools().get("p").await.unwrap().status.unwrap();
    assert_eq!((status.total, status.allocated, status.updated), (30, 0, 30));
    assert!(platform.writes("pools", "p") < 30, "status is not written for every pod");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smaller_buffer_shrinks_the_pool_and_zero_empties_it() {
    let platform = Platform::start().await;
    platform.pool("p", [4, 4, 0, 10]).await;
    platform.available("p", 4).await;
    for (capacity, n) in [(json!({"bufferMin": 1, "bufferMax": 2}), 1), (json!({"bufferMin": 0, "bufferMax": 0}), 0)] {
        let patch = json!({"spec": {"capacitySpec": capacity}});
        platform.pools().patch("p", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        platform.available("p", n).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_pool_is_told_and_stops_nobody() {
    let platform = Platform::start().await;
    let bad = json!({
        "apiVersion": "sandbox.opensandbox.io/v1alpha1", "kind": "Pool", "metadata": {"name": "bad"},
        "spec": {"template": {"spec": {"containers": [{"name": 5}]}},
            "capacitySpec": {"bufferMin": 1, "bufferMax": 1, "poolMin": 1, "poolMax": 1}}});
    let bad = serde_json::from_value(bad).unwrap();
    platform.pools().create(&PostParams::default(), &bad).await.unwrap();
    platform.pool("good", [2, 2, 0, 2]).await;
    platform.available("good", 2).await;
    let look = || async {
        let status = platform.pools().get("bad").await.unwrap().status?;
        status.conditions.into_iter().find(|c| c.kind == "InvalidSpec")
    };
    let condition = platform.until("the malformed pool says so", look).await;
    assert!(condition.message.unwrap().starts_with("spec.template: "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_was_deleted_by_hand_is_replaced() {
    let platform = Platform::start().await;
    platform.pool("p", [3, 3, 0, 3]).await;
    platform.available("p", 3).await;
    let before: HashSet<_> = platform.all_pods().await.iter().filter_map(|p| p.uid()).collect();
    let victim = platform.all_pods().await[0].name_any();
    platform.pods().delete(&victim, &DeleteParams::default()).await.unwrap();
    let look = || async {
        let now: HashSet<_> = platform.all_pods().await.iter().filter_map(|p| p.uid()).collect();
        (now.len() == 3 && now != before).then_some(())
    };
    platform.until("a new pod", look).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_controller_does_not_make_pods_again() {
    let mut platform = Platform::start().await;
    platform.pool("p", [3, 3, 0, 10]).await;
    platform.available("p", 3).await;
    let before: HashSet<_> = platform.all_pods().await.iter().filter_map(|p| p.uid()).collect();
    platform.kill_controller();
    platform.start_controller();
    platform.pool("q", [1, 1, 0, 1]).await;
    platform.available("q", 1).await;
    let now = platform.all_pods().await;
    let of_p: HashSet<_> =
        now.iter().filter(|p| p.labels()[labels::POOL_NAME] == "p").filter_map(|p| p.uid()).collect();
    assert_eq!(of_p, before);
}
