//! Two controllers, of which one leads. Time is the runtime's and jumps ahead when nobody has anything to do.

use std::sync::Arc;
use std::time::Duration;

use api_types::crd::{BatchSandboxStatus, Grant};
use api_types::names::annotations;
use controller::lease::{Fence as _, Leadership};
use controller::{Config, Controller, ControllerError, LeaderElection, SystemClock};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt as _};
use local_api::env::{Hook, WriteInfo};
use local_api::error::{ApiError, Result};
use parking_lot::Mutex;
use serde_json::json;
use telemetry::Readiness;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::platform::{Platform, Steady};

/// How long a lease holds in these tests.
const LEASE: Duration = Duration::from_secs(15);

fn election(identity: &str) -> LeaderElection {
    LeaderElection {
        namespace: "default".into(),
        name: LeaderElection::LEASE_NAME.into(),
        identity: identity.into(),
        duration: LEASE,
    }
}

struct Candidate {
    stop: CancellationToken,
    readiness: Readiness,
    task: JoinHandle<std::result::Result<(), ControllerError>>,
}

impl Candidate {
    fn start(platform: &Platform, identity: &str) -> Self {
        let mut config = Config::new([1; 32], [2; 32]);
        config.leader_election = Some(election(identity));
        let (stop, readiness) = (CancellationToken::new(), Readiness::default());
        let controller = Controller::new(platform.another_client(), config)
            .with_clock(Steady::new())
            .with_daemons(platform.daemons.clone())
            .with_readiness(readiness.clone());
        let task = tokio::spawn(controller.run(stop.clone()));
        Self { stop, readiness, task }
    }

    /// Waits until its caches are warm.
    async fn warm(&self) {
        while !self.readiness.is_ready() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn holder(client: &Client) -> Option<String> {
    let api: Api<Lease> = Api::namespaced(client.clone(), "default");
    api.get_opt(LeaderElection::LEASE_NAME).await.unwrap()?.spec?.holder_identity
}

async fn led_by(platform: &Platform, identity: &str) {
    let look = || async { (holder(&platform.client).await.as_deref() == Some(identity)).then_some(()) };
    platform.until(&format!("{identity} leads"), look).await;
}

#[tokio::test(start_paused = true)]
async fn a_warm_standby_leads_within_a_second_of_the_leaders_stop() {
    let platform = Platform::bare().await;
    let first = Candidate::start(&platform, "first");
    platform.pool("p", [2, 2, 0, 9]).await;
    platform.available("p", 2).await;
    let second = Candidate::start(&platform, "second");
    second.warm().await;
    assert_eq!(holder(&platform.client).await.as_deref(), Some("first"));
    platform.create("a", json!({"poolRef": "p", "replicas": 1})).await;
    let pod = platform.ready("a", 1).await.status.unwrap().grants[0].pod.clone();

    let begun = Instant::now();
    first.stop.cancel();
    first.task.await.unwrap().unwrap();
    led_by(&platform, "second").await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    platform.create("b", json!({"poolRef": "p", "replicas": 1})).await;
    assert_ne!(platform.ready("b", 1).await.status.unwrap().grants[0].pod, pod);
    second.stop.cancel();
    second.task.await.unwrap().unwrap();
    assert_eq!(holder(&platform.client).await.as_deref(), Some(""), "given back");
}

#[tokio::test(start_paused = true)]
async fn a_standby_leads_when_the_lease_of_a_dead_leader_has_run_out() {
    let platform = Platform::bare().await;
    let first = Candidate::start(&platform, "first");
    platform.pool("p", [1, 1, 0, 9]).await;
    platform.available("p", 1).await;
    let second = Candidate::start(&platform, "second");
    second.warm().await;
    let begun = Instant::now();
    first.task.abort();
    platform.create("a", json!({"poolRef": "p", "replicas": 1})).await;
    platform.ready("a", 1).await;
    let took = begun.elapsed();
    assert!(took >= LEASE * 2 / 3, "not before the dead one would have stopped by itself: {took:?}");
    assert!(took <= LEASE + LEASE / 5 + Duration::from_secs(1), "{took:?}");
    assert_eq!(holder(&platform.client).await.as_deref(), Some("second"));
    second.stop.cancel();
    second.task.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_the_leader_before_had_read_cannot_be_written_any_more() {
    let platform = Platform::bare().await;
    let first = Candidate::start(&platform, "first");
    platform.pool("p", [1, 1, 0, 9]).await;
    platform.available("p", 1).await;
    platform.create("settled", json!({"poolRef": "p", "replicas": 1})).await;
    platform.batch("settled", "annotated", |b| b.annotations().contains_key(annotations::ENDPOINTS)).await;
    platform.create("waits", json!({"poolRef": "later", "replicas": 1})).await;
    let waits = |b: &api_types::crd::BatchSandbox| b.status.as_ref().is_some_and(|s| !s.conditions.is_empty());
    let read_before = platform.batch("waits", "is told to wait", waits).await;
    first.task.abort();

    let second = Candidate::start(&platform, "second");
    led_by(&platform, "second").await;
    let fenced = platform.batch("waits", "changed", |b| b.annotations().contains_key(annotations::FENCE)).await;
    assert!(fenced.annotations()[annotations::FENCE].ends_with("second"));
    let settled = platform.batches().get("settled").await.unwrap();
    assert!(!settled.annotations().contains_key(annotations::FENCE), "who wants nothing is left alone");

    // The first one's grant arrives only now.
    let grant = Grant { pod: "p-1".into(), pod_uid: "u".into(), epoch: 1, ..Grant::default() };
    let mut late = read_before;
    late.status = Some(BatchSandboxStatus { grants: vec![grant], ..late.status.unwrap_or_default() });
    let refused = platform.batches().replace_status("waits", &PostParams::default(), &late).await;
    assert!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 409), "{refused:?}");
    second.stop.cancel();
    second.task.await.unwrap().unwrap();
}

/// Lets no Lease be written while it is set.
#[derive(Default)]
struct NoLeases(Mutex<bool>);

#[async_trait::async_trait]
impl Hook for NoLeases {
    async fn before_write(&self, write: &WriteInfo) -> Result<()> {
        if write.plural == "leases" && *self.0.lock() {
            return Err(ApiError::new(500, "InternalError", "the store is away"));
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn who_cannot_renew_stops_before_another_may_start() {
    let hook = Arc::new(NoLeases::default());
    let platform = Platform::bare_with(hook.clone()).await;
    let leadership = Leadership::new(platform.another_client(), Arc::new(SystemClock), election("only"), None);
    assert!(!leadership.may_write());
    leadership.acquire().await;
    assert!(leadership.may_write());
    *hook.0.lock() = true;
    let begun = Instant::now();
    let lost = leadership.keep().await;
    assert!(matches!(lost, ControllerError::LeaseLost(_)), "{lost}");
    assert!(!leadership.may_write());
    assert!(begun.elapsed() >= LEASE / 2 && begun.elapsed() < LEASE, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_stopped_controller_is_left_running() {
    let platform = Platform::bare().await;
    platform.pool("p", [2, 2, 0, 9]).await;
    platform.daemons.exits.lock().clear();
    let metrics = tokio::runtime::Handle::current().metrics();
    tokio::task::yield_now().await;
    let before = metrics.num_alive_tasks();
    let only = Candidate::start(&platform, "only");
    platform.available("p", 2).await;
    // Its entrypoint runs on, so somebody watches it.
    platform.create("s", json!({"poolRef": "p", "replicas": 1, "claim": {"entrypoint": ["sleep"]}})).await;
    platform.ready("s", 1).await;
    let begun = Instant::now();
    only.stop.cancel();
    only.task.await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    // What ended is counted until the runtime has come round.
    let settled = async {
        while metrics.num_alive_tasks() > before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), settled).await;
    assert!(waited.is_ok(), "{} tasks before, {} after", before, metrics.num_alive_tasks());
}
