//! What the API server refuses: told on the object, with what to do, and not asked for again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use api_types::crd::{BatchPhase, BatchSandbox, Condition};
use kube::api::{Patch, PatchParams};
use local_api::env::{Hook, WriteInfo};
use local_api::error::{ApiError, Result};
use serde_json::json;

use crate::platform::Platform;

/// Refuses pods while it is set.
#[derive(Default)]
pub struct Policy {
    pub message: parking_lot::Mutex<Option<String>>,
    pub asked: AtomicUsize,
}

#[async_trait::async_trait]
impl Hook for Policy {
    async fn before_write(&self, write: &WriteInfo) -> Result<()> {
        if write.plural == "pods" && write.verb == "create" {
            self.asked.fetch_add(1, Ordering::Relaxed);
            if let Some(message) = self.message.lock().clone() {
                return Err(ApiError::new(403, "Forbidden", message));
            }
        }
        Ok(())
    }
}

async fn pool_condition(platform: &Platform, kind: &str) -> Condition {
    let look = || async {
        let status = platform.pools().get("p").await.unwrap().status?;
        status.conditions.into_iter().find(|c| c.kind == kind)
    };
    platform.until(kind, look).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_forbids_the_pods_is_told_on_pool_and_sandbox_and_recovers() {
    let policy = Arc::new(Policy::default());
    *policy.message.lock() = Some("pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\"".to_owned());
    let platform = Platform::start_with(policy.clone()).await;
    platform.pool("p", [3, 3, 0, 5]).await;
    let condition = pool_condition(&platform, "PodsFailing").await;
    assert_eq!(condition.reason.as_deref(), Some("PodSecurity"));
    assert!(condition.message.unwrap().contains("pod-security.kubernetes.io/enforce"));
    let containers = json!([{"name": "c", "image": "i", "ports": [{"containerPort": 44772}]}]);
    platform
        .create("own", json!({"replicas": 1, "template": {"spec": {"nodeName": "node-1", "containers": containers}}}))
        .await;
    let failed = |b: &BatchSandbox| b.status.as_ref().is_some_and(|s| s.phase == Some(BatchPhase::Failed));
    let batch = platform.batch("own", "failed", failed).await;
    let told = batch.status.unwrap().conditions.into_iter().find(|c| c.kind == "PodFailed").unwrap();
    assert_eq!(told.reason.as_deref(), Some("PodSecurity"));
    // News of the pool does not bring the tries forward.
    let before = policy.asked.load(Ordering::Relaxed);
    for n in 0..20 {
        let patch = json!({"metadata": {"annotations": {"n": n.to_string()}}});
        platform.pools().patch("p", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }
    assert!(
        policy.asked.load(Ordering::Relaxed) - before <= 16,
        "each try asks for four, and comes later than the one before"
    );
    *policy.message.lock() = None;
    platform.available("p", 3).await;
    let batch = platform.ready("own", 1).await;
    assert_eq!(batch.status.unwrap().phase, Some(BatchPhase::Succeed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_waited_out() {
    let policy = Arc::new(Policy::default());
    *policy.message.lock() =
        Some("pods \"own-0\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1".to_owned());
    let platform = Platform::start_with(policy.clone()).await;
    let containers = json!([{"name": "c", "image": "i", "ports": [{"containerPort": 44772}]}]);
    platform
        .create("own", json!({"replicas": 1, "template": {"spec": {"nodeName": "node-1", "containers": containers}}}))
        .await;
    let waits = |b: &BatchSandbox| {
        let conditions = b.status.iter().flat_map(|s| &s.conditions);
        conditions.into_iter().any(|c| c.kind == "Progressing" && c.reason.as_deref() == Some("QuotaExceeded"))
    };
    let batch = platform.batch("own", "waits", waits).await;
    assert_eq!(batch.status.unwrap().phase, Some(BatchPhase::Pending));
    *policy.message.lock() = None;
    platform.ready("own", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_recycling_cannot_do_is_told() {
    let platform = Platform::start().await;
    platform.pool("p", [1, 1, 0, 5]).await;
    let patch = json!({"spec": {"recycleStrategy": {"type": "Restart"}}});
    platform.pools().patch("p", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    let condition = pool_condition(&platform, "RecycleUnsupported").await;
    assert!(condition.message.unwrap().contains("Restart"));
    pool_condition(&platform, "Ready").await;
}
