//! Who may write: the holder of a Lease, by its own monotonic clock.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Client;
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{Clock, ControllerError, LeaderElection};

/// Asked before each write.
pub trait Fence: Send + Sync {
    /// Whether a write may be made now.
    fn may_write(&self) -> bool;
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
}

impl Fence for Leadership {
    fn may_write(&self) -> bool {
        self.believed_until.lock().is_some_and(|until| Instant::now() < until)
    }
}

/// What another candidate's lease looked like, and since when it has not changed.
struct Observed {
    version: Option<String>,
    since: Instant,
}

impl Leadership {
    /// A candidate.
    pub fn new(client: Client, clock: Arc<dyn Clock>, election: LeaderElection) -> Self {
        Self { client, clock, election, believed_until: Mutex::new(None) }
    }

    /// Waits until we lead.
    pub async fn acquire(&self) {
        let mut observed = None;
        while !self.attempt(&mut observed).await {
            tokio::time::sleep(self.election.duration / 5).await;
        }
    }

    /// Keeps the lease; ends when it was lost.
    pub async fn keep(&self) -> ControllerError {
        let mut observed = None;
        loop {
            tokio::time::sleep(self.election.duration / 5).await;
            self.attempt(&mut observed).await;
            if !self.may_write() {
                return ControllerError::LeaseLost(self.election.name.clone());
            }
        }
    }

    async fn attempt(&self, observed: &mut Option<Observed>) -> bool {
        let start = Instant::now();
        let request = self.try_hold(observed);
        let held = match tokio::time::timeout(self.election.duration / 3, request).await {
            Ok(Ok(held)) => held,
            Ok(Err(error)) => {
                tracing::warn!(%error, "leader lease");
                false
            }
            Err(_) => false,
        };
        if held {
            *self.believed_until.lock() = Some(start + self.election.duration * 2 / 3);
        }
        held
    }

    async fn try_hold(&self, observed: &mut Option<Observed>) -> kube::Result<bool> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), &self.election.namespace);
        let now = self.clock.now();
        let Some(lease) = api.get_opt(&self.election.name).await? else {
            let fresh = Lease {
                metadata: ObjectMeta { name: Some(self.election.name.clone()), ..ObjectMeta::default() },
                spec: Some(self.spec(now, now, 0)),
            };
            return conflict_is_no(api.create(&PostParams::default(), &fresh).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let ours = spec.holder_identity.as_deref() == Some(self.election.identity.as_str());
        if !ours && spec.holder_identity.as_deref().is_some_and(|h| !h.is_empty()) {
            // Clocks of two machines are not compared: the lease is over when we have not seen it change for its time.
            let version = lease.metadata.resource_version.clone();
            let changed = observed.as_ref().is_none_or(|o| o.version != version);
            if changed {
                *observed = Some(Observed { version, since: Instant::now() });
            }
            let seconds = u64::try_from(spec.lease_duration_seconds.unwrap_or(15)).unwrap_or(15);
            if changed || observed.as_ref().is_some_and(|o| o.since.elapsed() < Duration::from_secs(seconds)) {
                return Ok(false);
            }
        }
        let acquired = spec.acquire_time.as_ref().filter(|_| ours).map_or(now, |t| t.0);
        let transitions = spec.lease_transitions.unwrap_or(0) + i32::from(!ours);
        let wanted = Lease { spec: Some(self.spec(acquired, now, transitions)), ..lease };
        conflict_is_no(api.replace(&self.election.name, &PostParams::default(), &wanted).await)
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

fn conflict_is_no<T>(result: kube::Result<T>) -> kube::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}
