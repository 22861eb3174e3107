//! Who may write: the holder of a Lease, by its own monotonic clock.
//!
//! The protocol is that of client-go's leader election, so that a published controller and this one never lead together.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Client;
use kube::api::{Api, PostParams, WatchEvent, WatchParams};
use parking_lot::Mutex;
use telemetry::Check;
use tokio::time::Instant;

use crate::{Clock, ControllerError, LeaderElection};

/// Asked before each write.
pub trait Fence: Send + Sync {
    /// Whether a write may be made now.
    fn may_write(&self) -> bool;

    /// Until when a write that is made now must have been answered, if there is such a time.
    fn until(&self) -> Option<Instant> {
        None
    }
}

/// Where there can be only one controller.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Fence for Alone {
    fn may_write(&self) -> bool {
        true
    }
}

/// Holds a Lease, or waits for it.
pub struct Leadership {
    client: Client,
    clock: Arc<dyn Clock>,
    election: LeaderElection,
    /// Until when we believe to lead: counted from before the request that renewed the lease, and
    /// shorter than the lease, so that we stop before another may start.
    believed_until: Mutex<Option<Instant>>,
    /// Tells whether the Lease can be reached.
    check: Option<Check>,
}

impl Fence for Leadership {
    fn may_write(&self) -> bool {
        self.believed_until.lock().is_some_and(|until| Instant::now() < until)
    }

    fn until(&self) -> Option<Instant> {
        *self.believed_until.lock()
    }
}

/// What another candidate's lease looked like, and since when it has not changed.
#[derive(Debug, Default)]
struct Observed {
    version: Option<String>,
    since: Option<Instant>,
    /// How long it holds without being renewed.
    duration: Duration,
}

/// What one attempt came to.
enum Attempt {
    /// We lead, for the how manieth time anybody did.
    Held(i32),
    /// Another leads, or nobody knows.
    Not,
}

impl Leadership {
    /// A candidate. `check` is told when the Lease cannot be reached.
    pub fn new(client: Client, clock: Arc<dyn Clock>, election: LeaderElection, check: Option<Check>) -> Self {
        Self { client, clock, election, believed_until: Mutex::new(None), check }
    }

    /// Waits until we lead. The answer is the number of this leadership, which no two have.
    pub async fn acquire(&self) -> i32 {
        let mut observed = Observed::default();
        loop {
            if let Attempt::Held(number) = self.attempt(&mut observed).await {
                return number;
            }
            self.until_worth_a_try(&observed).await;
        }
    }

    /// Keeps the lease; ends when it was lost.
    pub async fn keep(&self) -> ControllerError {
        let mut observed = Observed::default();
        loop {
            tokio::time::sleep(self.election.duration / 5).await;
            self.attempt(&mut observed).await;
            if !self.may_write() {
                return ControllerError::LeaseLost(self.election.name.clone());
            }
        }
    }

    /// Gives the lease back, so that another may lead at once. Nothing may be written any more.
    pub async fn release(&self) {
        if self.believed_until.lock().take().is_none() {
            return;
        }
        let release = async {
            let api = self.api();
            let Some(lease) = api.get_opt(&self.election.name).await? else { return Ok(false) };
            let mut spec = lease.spec.clone().unwrap_or_default();
            if spec.holder_identity.as_deref() != Some(self.election.identity.as_str()) {
                return Ok(false);
            }
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            spec.renew_time = Some(MicroTime(self.clock.now()));
            let released = Lease { spec: Some(spec), ..lease };
            api.replace(&self.election.name, &PostParams::default(), &released).await.map(|_| true)
        };
        match tokio::time::timeout(self.election.duration / 5, release).await {
            Ok(Ok(true)) => tracing::info!(lease = self.election.name, "released"),
            Ok(Ok(false)) => tracing::info!(lease = self.election.name, "another holds the lease already"),
            Ok(Err(error)) => tracing::warn!(%error, "the leader lease was not released and has to run out"),
            Err(_) => tracing::warn!("the leader lease was not released in time and has to run out"),
        }
    }

    fn api(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.election.namespace)
    }

    /// Waits until the lease changes, or its time has passed, but not long without looking.
    async fn until_worth_a_try(&self, observed: &Observed) {
        let mut wait = self.election.duration / 5;
        if let Some(since) = observed.since {
            let over = (since + observed.duration).saturating_duration_since(Instant::now());
            wait = wait.min(over + Duration::from_millis(1));
        }
        let Some(version) = &observed.version else {
            tokio::time::sleep(wait).await;
            return;
        };
        // A watch only spares time; whatever becomes of it, the clock decides.
        let changed = async {
            let params = WatchParams::default().fields(&format!("metadata.name={}", self.election.name)).timeout(290);
            if let Ok(events) = self.api().watch(&params, version).await {
                let mut events = std::pin::pin!(events);
                while let Some(Ok(event)) = events.next().await {
                    let is_free = match event {
                        WatchEvent::Deleted(_) => true,
                        WatchEvent::Added(lease) | WatchEvent::Modified(lease) => {
                            lease.spec.and_then(|s| s.holder_identity).unwrap_or_default().is_empty()
                        }
                        WatchEvent::Bookmark(_) | WatchEvent::Error(_) => false,
                    };
                    if is_free {
                        return;
                    }
                }
            }
            std::future::pending::<()>().await;
        };
        let _ = tokio::time::timeout(wait, changed).await;
    }

    async fn attempt(&self, observed: &mut Observed) -> Attempt {
        let start = Instant::now();
        let request = self.try_hold(observed);
        let attempt = match tokio::time::timeout(self.election.duration / 3, request).await {
            Ok(Ok(attempt)) => {
                self.check.iter().for_each(Check::pass);
                attempt
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, lease = self.election.name, namespace = self.election.namespace, "leader lease");
                if let Some(check) = &self.check {
                    check.fail(format!("lease {}/{}: {error}", self.election.namespace, self.election.name));
                }
                Attempt::Not
            }
            Err(_) => Attempt::Not,
        };
        if matches!(attempt, Attempt::Held(_)) {
            *self.believed_until.lock() = Some(start + self.election.duration * 2 / 3);
        }
        attempt
    }

    async fn try_hold(&self, observed: &mut Observed) -> kube::Result<Attempt> {
        let api = self.api();
        let now = self.clock.now();
        let Some(lease) = api.get_opt(&self.election.name).await? else {
            let fresh = Lease {
                metadata: ObjectMeta { name: Some(self.election.name.clone()), ..ObjectMeta::default() },
                spec: Some(self.spec(now, now, 0)),
            };
            return held(api.create(&PostParams::default(), &fresh).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let ours = spec.holder_identity.as_deref() == Some(self.election.identity.as_str());
        if !ours && spec.holder_identity.as_deref().is_some_and(|h| !h.is_empty()) {
            // Clocks of two machines are not compared: the lease is over when we have not seen it change for its time.
            let version = lease.metadata.resource_version.clone();
            let since = observed.since.filter(|_| observed.version == version);
            let seconds = u64::try_from(spec.lease_duration_seconds.unwrap_or(15)).unwrap_or(15);
            let duration = Duration::from_secs(seconds);
            *observed = Observed { version, since: Some(since.unwrap_or_else(Instant::now)), duration };
            if since.is_none_or(|since| since.elapsed() < duration) {
                return Ok(Attempt::Not);
            }
        }
        let acquired = spec.acquire_time.as_ref().filter(|_| ours).map_or(now, |t| t.0);
        let transitions = spec.lease_transitions.unwrap_or(0) + i32::from(!ours);
        let wanted = Lease { spec: Some(self.spec(acquired, now, transitions)), ..lease };
        held(api.replace(&self.election.name, &PostParams::default(), &wanted).await)
    }

    fn spec(&self, acquired: Timestamp, renewed: Timestamp, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.election.identity.clone()),
            lease_duration_seconds: i32::try_from(self.election.duration.as_secs()).ok(),
            acquire_time: Some(MicroTime(acquired)),
            renew_time: Some(MicroTime(renewed)),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

/// A lease that was written is ours; one that somebody else wrote meanwhile is not.
fn held(result: kube::Result<Lease>) -> kube::Result<Attempt> {
    match result {
        Ok(lease) => Ok(Attempt::Held(lease.spec.and_then(|s| s.lease_transitions).unwrap_or(0))),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Attempt::Not),
        Err(error) => Err(error),
    }
}
