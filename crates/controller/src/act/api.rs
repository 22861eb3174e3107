//! Writes to the Kubernetes API, each with its precondition, a deadline and the leader's check.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use api_types::crd::{BatchSandbox, BatchSandboxStatus, Pool, PoolStatus};
use api_types::names::labels;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::lease::Fence;
use crate::world::{ObjectName, PodView};

/// How long one request may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why an action was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// The object has changed since it was read.
    #[error("the object has changed since it was read")]
    Conflict,
    /// The object is gone.
    #[error("the object is gone")]
    Gone,
    /// The API server refused: the write was not done.
    #[error("the API server refused: {0}")]
    Refused(String),
    /// Nobody knows whether the write was done.
    #[error("the API server did not answer: {0}")]
    Unknown(String),
    /// We are not the leader.
    #[error("another controller leads")]
    NotLeader,
}

impl From<kube::Error> for ActError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => match status.code {
                404 | 410 => Self::Gone,
                409 => Self::Conflict,
                // Time-outs and internal errors may have been written.
                408 | 500.. => Self::Unknown(status.message.clone()),
                _ => Self::Refused(status.message.clone()),
            },
            other => Self::Unknown(other.to_string()),
        }
    }
}

/// What the API server said to a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// It is on its way out.
    Accepted,
    /// It, or what had its UID, is gone.
    Gone,
}

/// The writing hand.
pub struct Writer {
    client: Client,
    fence: Arc<dyn Fence>,
}

impl Writer {
    /// Writes through `client` while `fence` lets it.
    pub fn new(client: Client, fence: Arc<dyn Fence>) -> Self {
        Self { client, fence }
    }

    fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    async fn write<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, ActError> {
        if !self.fence.may_write() {
            return Err(ActError::NotLeader);
        }
        within(request).await
    }

    /// Creates a pod.
    pub async fn create_pod(&self, pod: &Pod) -> Result<Pod, ActError> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        self.write(self.api::<Pod>(namespace).create(&PostParams::default(), pod)).await
    }

    /// Reads a pod.
    pub async fn pod(&self, name: &ObjectName) -> Result<Option<Pod>, ActError> {
        within(self.api::<Pod>(&name.namespace).get_opt(&name.name)).await
    }

    /// Reads a BatchSandbox.
    pub async fn batch(&self, name: &ObjectName) -> Result<Option<BatchSandbox>, ActError> {
        within(self.api::<BatchSandbox>(&name.namespace).get_opt(&name.name)).await
    }

    /// Deletes a pod of exactly this UID.
    pub async fn delete_pod(&self, pod: &PodView) -> Result<Deleted, ActError> {
        self.delete::<Pod>(&pod.namespace, &pod.name, &pod.uid).await
    }

    /// Deletes a BatchSandbox of exactly this UID.
    pub async fn delete_batch(&self, name: &ObjectName, uid: &str) -> Result<Deleted, ActError> {
        self.delete::<BatchSandbox>(&name.namespace, &name.name, uid).await
    }

    async fn delete<K>(&self, namespace: &str, name: &str, uid: &str) -> Result<Deleted, ActError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let params = DeleteParams {
            preconditions: Some(Preconditions { resource_version: None, uid: Some(uid.to_owned()) }),
            ..DeleteParams::background()
        };
        let api = self.api::<K>(namespace);
        match self.write(api.delete(name, &params)).await {
            Ok(_) => Ok(Deleted::Accepted),
            // Conflict: the name belongs to another UID now, so ours is gone.
            Err(ActError::Gone | ActError::Conflict) => Ok(Deleted::Gone),
            Err(error) => Err(error),
        }
    }

    /// Writes the status of a BatchSandbox, if nobody has written the object since it was read.
    pub async fn batch_status(
        &self,
        batch: &BatchSandbox,
        status: BatchSandboxStatus,
    ) -> Result<BatchSandbox, ActError> {
        let namespace = batch.metadata.namespace.as_deref().unwrap_or_default();
        let name = batch.metadata.name.as_deref().unwrap_or_default();
        let wanted = BatchSandbox { status: Some(status), ..batch.clone() };
        self.write(self.api::<BatchSandbox>(namespace).replace_status(name, &PostParams::default(), &wanted)).await
    }

    /// Sets the finalizers of a BatchSandbox, if nobody has written the object since it was read.
    pub async fn finalizers(&self, batch: &BatchSandbox, finalizers: &[String]) -> Result<BatchSandbox, ActError> {
        let patch = json!({"metadata": {
            "uid": batch.metadata.uid, "resourceVersion": batch.metadata.resource_version, "finalizers": finalizers}});
        self.patch_batch(batch, &patch).await
    }

    /// Sets annotations of a BatchSandbox of this UID; others stay.
    pub async fn annotate(
        &self,
        batch: &BatchSandbox,
        annotations: &BTreeMap<String, String>,
    ) -> Result<BatchSandbox, ActError> {
        let patch = json!({"metadata": {"uid": batch.metadata.uid, "annotations": annotations}});
        self.patch_batch(batch, &patch).await
    }

    async fn patch_batch(&self, batch: &BatchSandbox, patch: &serde_json::Value) -> Result<BatchSandbox, ActError> {
        let namespace = batch.metadata.namespace.as_deref().unwrap_or_default();
        let name = batch.metadata.name.as_deref().unwrap_or_default();
        let api = self.api::<BatchSandbox>(namespace);
        self.write(api.patch(name, &PatchParams::default(), &Patch::Merge(patch))).await
    }

    /// Labels a pod of exactly this UID with its holder. `exclusive` makes it fail when the pod has
    /// changed since it was seen.
    pub async fn mark_pod(&self, pod: &PodView, holder: &str, exclusive: bool) -> Result<Pod, ActError> {
        let mut meta = json!({"uid": &*pod.uid, "labels": {labels::CLAIMED_BY: holder}});
        if exclusive {
            meta["resourceVersion"] = json!(pod.version.to_string());
        }
        let api = self.api::<Pod>(&pod.namespace);
        let patch = json!({"metadata": meta});
        self.write(api.patch(&pod.name, &PatchParams::default(), &Patch::Merge(&patch))).await
    }

    /// Writes the status of a Pool, if nobody has written the object since it was read.
    pub async fn pool_status(&self, pool: &Pool, status: PoolStatus) -> Result<Pool, ActError> {
        let namespace = pool.metadata.namespace.as_deref().unwrap_or_default();
        let name = pool.metadata.name.as_deref().unwrap_or_default();
        let wanted = Pool { status: Some(status), ..pool.clone() };
        self.write(self.api::<Pool>(namespace).replace_status(name, &PostParams::default(), &wanted)).await
    }

    /// Reads a Pool.
    pub async fn pool(&self, name: &ObjectName) -> Result<Option<Pool>, ActError> {
        within(self.api::<Pool>(&name.namespace).get_opt(&name.name)).await
    }
}

async fn within<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, ActError> {
    match tokio::time::timeout(DEADLINE, request).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(ActError::Unknown("no answer in time".to_owned())),
    }
}
