//! One case on the shared platform: what it made is known, and goes with it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api_types::crd::{BatchSandbox, Pool};
use api_types::names::labels;
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};

use super::Cluster;
use super::crash::Killed;
use crate::ground::{Component, Environment};
use crate::watch::{LIMIT, none_left, until};

/// Name of the example's pool.
const SEED: &str = "agent-pool";

/// The platform during one case.
pub struct Case {
    cluster: Cluster,
    pools: BTreeSet<String>,
    sandboxes: BTreeSet<String>,
    killed: Mutex<Vec<Killed>>,
}

impl Case {
    pub(super) async fn begin(cluster: Cluster) -> Result<Self> {
        // A case may have installed the platform anew.
        cluster.refresh().await?;
        let namespace = &cluster.setting().namespace;
        let pools = names::<Pool>(Api::namespaced(cluster.client(), namespace)).await?;
        let sandboxes = names::<BatchSandbox>(Api::namespaced(cluster.client(), namespace)).await?;
        Ok(Self { cluster, pools, sandboxes, killed: Mutex::default() })
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.cluster.client(), self.namespace())
    }

    /// Deletes what is not in `keep`, and waits until it is gone.
    async fn clear<K>(&self, keep: &BTreeSet<String>, what: &str) -> Result<()>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + Send
            + 'static,
        K::DynamicType: Default,
    {
        let api = self.api::<K>();
        for name in names(api.clone()).await?.difference(keep) {
            match api.delete(name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                outcome => drop(outcome.with_context(|| format!("cannot delete {what} {name}"))?),
            }
        }
        none_left(LIMIT, api, watcher::Config::default(), what, |o: &K| !keep.contains(&o.name_any())).await
    }
}

async fn names<K>(api: Api<K>) -> Result<BTreeSet<String>>
where
    K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    match api.list(&ListParams::default()).await {
        Ok(list) => Ok(list.items.iter().map(ResourceExt::name_any).collect()),
        // Without the CRDs there is no object.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(BTreeSet::new()),
        Err(error) => Err(error.into()),
    }
}

#[async_trait]
impl Environment for Case {
    fn namespace(&self) -> &str {
        &self.cluster.setting().namespace
    }

    fn domain(&self) -> String {
        self.cluster.domain()
    }

    fn api_key(&self) -> String {
        self.cluster.api_key()
    }

    async fn client(&self) -> Result<Client> {
        Ok(self.cluster.client())
    }

    fn kubectl(&self) -> Command {
        self.cluster.kubectl()
    }

    fn osb(&self) -> Result<Command> {
        let mut command = Command::new(crate::platform::binaries()?.join("osb"));
        command.env("OPEN_SANDBOX_DOMAIN", self.domain()).env("OPEN_SANDBOX_API_KEY", self.api_key());
        command.env("KUBECONFIG", &self.cluster.setting().kubeconfig);
        Ok(command)
    }

    async fn seed_pool(&self) -> Result<()> {
        let pools = self.api::<Pool>();
        let fresh =
            |p: &Pool| p.status.as_ref().is_some_and(|s| s.allocated == 0 && s.total == 30 && s.available == 30);
        if pools.get_opt(SEED).await?.is_some_and(|p| fresh(&p)) {
            return Ok(());
        }
        // What a pool rests at depends on who used it. helm makes a new one, as the values have it.
        if let Some(old) = pools.get_opt(SEED).await? {
            pools.delete(SEED, &DeleteParams::default()).await?;
            let uid = old.metadata.uid;
            none_left(LIMIT, pools, watcher::Config::default(), "pool", |p: &Pool| p.metadata.uid == uid).await?;
        }
        self.cluster.helm().upgrade(&[])?.ok()?;
        Ok(())
    }

    async fn crash(&self, component: Component) -> Result<()> {
        let killed = self.cluster.kill(component).await?;
        self.killed.lock().unwrap_or_else(PoisonError::into_inner).push(killed);
        Ok(())
    }

    async fn recover(&self, _: Component) -> Result<()> {
        let killed = std::mem::take(&mut *self.killed.lock().unwrap_or_else(PoisonError::into_inner));
        ensure!(!killed.is_empty(), "nothing was killed");
        for one in &killed {
            self.cluster.back(one).await?;
        }
        Ok(())
    }

    fn processes(&self) -> Option<Result<usize>> {
        self.cluster.nodes().ok().map(|nodes| nodes.processes())
    }

    fn cluster(&self) -> Option<&Cluster> {
        Some(&self.cluster)
    }

    fn gather(&self, directory: &Path) -> Result<()> {
        self.cluster.gather(directory)
    }

    async fn end(&self) -> Result<()> {
        self.cluster.close_way().await?;
        let crds = self.api::<Pool>().list(&ListParams::default().limit(1)).await;
        if matches!(&crds, Err(kube::Error::Api(status)) if status.code == 404) {
            return Ok(());
        }
        self.clear::<BatchSandbox>(&self.sandboxes, "sandboxes").await?;
        self.clear::<Pool>(&self.pools, "pools").await?;
        // Pods of the pools that stay are those pools'.
        let ours = |pod: &Pod| {
            let label = |key: &str| pod.labels().get(key);
            label(labels::BATCH_NAME).is_some_and(|name| !self.sandboxes.contains(name))
                || label(labels::POOL_NAME).is_some_and(|name| !self.pools.contains(name))
        };
        none_left(Duration::from_secs(180), self.api::<Pod>(), watcher::Config::default(), "pods", ours).await?;
        for pool in &self.pools {
            let free = |p: &Pool| p.status.as_ref().is_some_and(|s| s.allocated == 0);
            if self.api::<Pool>().get_opt(pool).await?.is_some() && self.sandboxes.is_empty() {
                until(self.api::<Pool>(), pool, "free", free).await?;
            }
        }
        Ok(())
    }
}
