//! The grounds that the suite runs on, behind one trait.
//!
//! A case knows no ground: it asks the environment for addresses, clients and tools, and names what it needs. What a
//! ground cannot give is a skip with a reason, never a silent one.

mod cluster;
mod embedded;
mod forward;
mod need;
mod nodes;
mod setting;
pub mod tool;

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use kube::Client;
use opensandbox::ConnectionConfig;

pub use cluster::{Cluster, Helm, Way};
pub use need::{Need, embedded_lacks};
pub use nodes::Nodes;
pub use setting::Setting;

use tool::Said;

/// A part of the platform that can die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// What keeps pools and sandboxes true.
    Controller,
    /// What answers the lifecycle API.
    Server,
}

/// A running platform, wherever it is.
#[async_trait]
pub trait Environment: Send + Sync {
    /// Namespace of sandboxes and pools.
    fn namespace(&self) -> &str;

    /// `HOST:PORT` of the lifecycle API, from this machine.
    fn domain(&self) -> String;

    /// Key of the lifecycle API.
    fn api_key(&self) -> String;

    /// A client of the Kubernetes API.
    async fn client(&self) -> Result<Client>;

    /// kubectl on this platform, in the namespace of sandboxes and pools.
    fn kubectl(&self) -> Command;

    /// `osb` on this platform.
    fn osb(&self) -> Result<Command>;

    /// The example's pool, as one who has just installed it finds it.
    async fn seed_pool(&self) -> Result<()>;

    /// Kills a component as a crash would, and returns at once.
    async fn crash(&self, component: Component) -> Result<()>;

    /// Waits until a killed component serves again, or starts it where nobody else does.
    async fn recover(&self, component: Component) -> Result<()>;

    /// Processes on the machines that sandboxes run on, where they can be counted.
    fn processes(&self) -> Option<Result<usize>> {
        None
    }

    /// The cluster's own side of the ground: helm, nodes, the API server. None where there is none.
    fn cluster(&self) -> Option<&Cluster> {
        None
    }

    /// Gathers what tells of a failure into a directory.
    fn gather(&self, directory: &std::path::Path) -> Result<()>;

    /// Takes away what a case has made; an error if anything of it stays.
    async fn end(&self) -> Result<()>;

    /// How the SDK reaches the platform.
    fn connection(&self) -> ConnectionConfig {
        ConnectionConfig::new(self.domain()).api_key(self.api_key())
    }

    /// What kubectl said, whether it failed or not; `stdin` is what it reads.
    fn kubectl_says(&self, arguments: &[&str], stdin: &str) -> Result<Said> {
        tool::says(self.kubectl().args(arguments), stdin)
    }

    /// What kubectl printed; its failure is an error with what it said.
    fn kubectl_ok(&self, arguments: &[&str], stdin: &str) -> Result<String> {
        self.kubectl_says(arguments, stdin)?.ok()
    }
}

/// A shared environment, so that a case's background work can hold it.
pub type Ground = Arc<dyn Environment>;

/// Which ground the suite was told to use.
pub enum Field {
    /// `osb up`, one for each case.
    Embedded,
    /// A cluster with the platform installed, one for all cases.
    Cluster(Box<Cluster>),
}

/// The environment variable that names the file of a [`Setting`]. Without it the ground is the embedded one.
pub const SETTING: &str = "OPENSANDBOX_E2E_CLUSTER";

impl Field {
    /// The ground that the environment names.
    pub async fn from_env() -> Result<Self> {
        match std::env::var_os(SETTING) {
            Some(path) => Ok(Self::Cluster(Box::new(Cluster::reach(Setting::read(path.as_ref())?).await?))),
            None => Ok(Self::Embedded),
        }
    }

    /// Name of the ground.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Cluster(_) => "cluster",
        }
    }

    /// Why the ground cannot give what is needed, if so.
    pub fn lacks(&self, need: Need) -> Option<String> {
        match self {
            Self::Embedded => need.embedded().map(str::to_owned).or_else(|| need.machine()),
            Self::Cluster(cluster) => cluster.lacks(need).or_else(|| need.machine()),
        }
    }

    /// Begins a case.
    pub async fn begin(&self) -> Result<Ground> {
        match self {
            Self::Embedded => Ok(Arc::new(embedded::Embedded::start()?)),
            Self::Cluster(cluster) => Ok(Arc::new(cluster.case().await?)),
        }
    }

    /// Longest time a case may take unless it says otherwise.
    pub fn limit(&self) -> Duration {
        match self {
            Self::Embedded => Duration::from_secs(600),
            Self::Cluster(_) => Duration::from_secs(900),
        }
    }
}
