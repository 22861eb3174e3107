//! Writes to the Kubernetes API, each with its precondition, a deadline and the leader's check.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use api_types::crd::{BatchSandbox, BatchSandboxStatus, Pool, PoolStatus};
use api_types::names::{annotations, labels};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::json;
use telemetry::kubernetes::INSTALL_CRDS;
use tokio::time::Instant;

use crate::guard::{Guard, stands};
use crate::lease::Fence;
use crate::world::{ObjectName, PodView};

/// Objects read with one request.
const PAGE: u32 = 500;

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
    #[error("the API server refused with {code}: {message}")]
    Refused {
        /// HTTP status.
        code: u16,
        /// Its words.
        message: String,
    },
    /// The API server dropped a field that must be durable: its CRD is of an older version.
    #[error("the CRD {crd} on the cluster has no {field}: {INSTALL_CRDS}")]
    OldCrd {
        /// Name of the CRD.
        crd: &'static str,
        /// The field.
        field: &'static str,
    },
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
                404 => Self::Gone,
                409 => Self::Conflict,
                // Time-outs and internal errors may have been written.
                408 | 500.. => Self::Unknown(status.message.clone()),
                code => Self::Refused { code, message: status.message.clone() },
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

    /// Whether a write may be made now.
    pub fn may_write(&self) -> bool {
        self.fence.may_write()
    }

    fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    async fn write<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, ActError> {
        if stands(Guard::LeaseCheck) && !self.fence.may_write() {
            return Err(ActError::NotLeader);
        }
        let deadline = Instant::now() + DEADLINE;
        // What is not answered while we lead is given up then: its connection closes, and with it the request.
        let deadline =
            self.fence.until().filter(|_| stands(Guard::LeaseDeadline)).map_or(deadline, |until| deadline.min(until));
        match tokio::time::timeout_at(deadline, request).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(ActError::Unknown("no answer in time".to_owned())),
        }
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
            preconditions: stands(Guard::DeleteUid)
                .then(|| Preconditions { resource_version: None, uid: Some(uid.to_owned()) }),
            ..DeleteParams::background()
        };
        let api = self.api::<K>(namespace);
        match self.write(api.delete(name, &params)).await {
            Ok(_) => Ok(Deleted::Accepted),
            Err(ActError::Gone) => Ok(Deleted::Gone),
            // Most likely the name belongs to another UID now. A pod wrongly believed gone would be a leak: it is looked up.
            Err(ActError::Conflict) => match within(api.get_opt(name)).await? {
                Some(found) if found.meta().uid.as_deref() == Some(uid) => Err(ActError::Conflict),
                _ => Ok(Deleted::Gone),
            },
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
        let (grants, terminated) = (status.grants.len(), status.termination.is_some());
        let mut wanted = BatchSandbox { status: Some(status), ..batch.clone() };
        if !stands(Guard::StatusVersion) {
            wanted.metadata.resource_version = None;
        }
        let api = self.api::<BatchSandbox>(namespace);
        let written = self.write(api.replace_status(name, &PostParams::default(), &wanted)).await?;
        // A CRD without our fields lets the API server drop them silently: then no grant would ever be durable.
        if written.status.as_ref().map_or(0, |s| s.grants.len()) != grants {
            return Err(ActError::OldCrd { crd: "batchsandboxes.sandbox.opensandbox.io", field: "status.grants" });
        }
        // The same write would be tried for ever.
        if terminated && written.status.as_ref().is_none_or(|s| s.termination.is_none()) {
            return Err(ActError::OldCrd { crd: "batchsandboxes.sandbox.opensandbox.io", field: "status.termination" });
        }
        Ok(written)
    }

    /// Sets the finalizers of a BatchSandbox, if nobody has written the object since it was read.
    pub async fn finalizers(&self, batch: &BatchSandbox, finalizers: &[String]) -> Result<BatchSandbox, ActError> {
        let patch = json!({"metadata": {
            "uid": batch.metadata.uid, "resourceVersion": batch.metadata.resource_version, "finalizers": finalizers}});
        self.patch_batch(batch, &patch).await
    }

    /// Reads every BatchSandbox of a namespace, or of all, as the API server has them now.
    pub async fn batches(&self, namespace: Option<&str>) -> Result<Vec<BatchSandbox>, ActError> {
        let api = match namespace {
            Some(namespace) => self.api::<BatchSandbox>(namespace),
            None => Api::all(self.client.clone()),
        };
        let mut all = Vec::new();
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = within(api.list(&params)).await?;
            all.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(all),
            }
        }
    }

    /// Changes a BatchSandbox so that whoever has read it before cannot write it any more.
    pub async fn bump(&self, batch: &BatchSandbox, mark: &str) -> Result<BatchSandbox, ActError> {
        self.annotate(batch, &BTreeMap::from([(annotations::FENCE.to_owned(), mark.to_owned())])).await
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
