//! What the controller is told at its start.

use std::time::Duration;

/// Settings of one controller.
#[derive(Clone)]
pub struct Config {
    /// The namespaces to look after; none named is all of them.
    pub namespaces: Vec<String>,
    /// Secret seed of the Ed25519 key that signs calls to daemons.
    pub signer_seed: [u8; 32],
    /// Secret from which execd tokens are derived.
    pub token_secret: [u8; 32],
    /// How the one active controller is chosen; `None` where there can be only one.
    pub leader_election: Option<LeaderElection>,
    /// Objects worked on at once.
    pub concurrency: usize,
    /// Calls to daemons at once, long polls apart.
    pub daemon_concurrency: usize,
    /// Least time between two status writes on one Pool.
    pub pool_status_interval: Duration,
    /// How long a claim may take before the pod is given up.
    pub claim_deadline: Duration,
}

/// Settings of the leader election.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderElection {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Who we are; unique among the candidates.
    pub identity: String,
    /// How long a lease holds without being renewed.
    pub duration: Duration,
}

impl LeaderElection {
    /// The lease that published OpenSandbox controllers use too, so that only one of any kind is active.
    pub const LEASE_NAME: &'static str = "2fa1c467.opensandbox.io";
}

impl Config {
    /// The defaults, with the platform's two secrets.
    pub fn new(signer_seed: [u8; 32], token_secret: [u8; 32]) -> Self {
        Self {
            namespaces: Vec::new(),
            signer_seed,
            token_secret,
            leader_election: None,
            concurrency: 32,
            daemon_concurrency: 256,
            pool_status_interval: Duration::from_millis(100),
            claim_deadline: Duration::from_secs(10),
        }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("namespaces", &self.namespaces)
            .field("leader_election", &self.leader_election)
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}
