//! What every pod's worker shares.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use tokio::sync::Semaphore;

use super::events::Recorder;
use crate::cgroup::Hierarchies;
use crate::env::NodeFacts;
use crate::images::ImageStore;
use crate::network::Network;
use crate::volumes::Volumes;
use crate::volumes::objects::{ObjectError, ObjectSource};

/// What every pod's worker shares.
pub struct Context {
    /// The Kubernetes API.
    pub client: kube::Client,
    /// Events.
    pub recorder: Recorder,
    /// Images.
    pub images: ImageStore,
    /// The pods' network.
    pub network: Network,
    /// Volumes.
    pub volumes: Volumes,
    /// Control groups.
    pub groups: Hierarchies,
    /// Bounds how many pods start or end something at once.
    pub permits: Arc<Semaphore>,
    /// What the node knows and pods may ask for.
    pub facts: NodeFacts,
    /// The machine's resolv.conf.
    pub resolv_conf: String,
    /// Directory of all pods.
    pub pods_dir: PathBuf,
    /// Most processes in a pod.
    pub pids_limit: u64,
    /// Size at which a container's log is rotated.
    pub log_max_bytes: u64,
    /// Files kept of a container's log.
    pub log_max_files: u32,
    /// Whether privileged containers are allowed.
    pub allow_privileged: bool,
}

impl Context {
    /// Directory of one pod.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.pods_dir.join(uid)
    }
}

#[async_trait]
impl ObjectSource for Context {
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<ConfigMap>, ObjectError> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        api.get_opt(name).await.map_err(|error| ObjectError::Fetch {
            kind: "configmap",
            name: name.to_owned(),
            reason: error.to_string(),
        })
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, ObjectError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        api.get_opt(name).await.map_err(|error| ObjectError::Fetch {
            kind: "secret",
            name: name.to_owned(),
            reason: error.to_string(),
        })
    }
}
