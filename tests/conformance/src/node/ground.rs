//! Where pods run: a client of the API, a namespace for this run, and what of the place must not be compared.

use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client};

/// Longest wait for a namespace to be usable, or to be empty.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where pods run.
#[derive(Clone)]
pub struct Ground {
    /// A client of its API.
    pub client: Client,
    /// The namespace of this run.
    pub namespace: String,
}

impl Ground {
    /// A cluster that a kubeconfig names, with a namespace of this run's own.
    pub async fn cluster(kubeconfig: &str) -> anyhow::Result<Self> {
        let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig)?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
        let namespace = format!("conformance-{}", std::process::id());
        let ground = Self { client: config.try_into()?, namespace };
        ground.make_namespace().await?;
        let accounts: Api<ServiceAccount> = Api::namespaced(ground.client.clone(), &ground.namespace);
        let there = await_condition(accounts, "default", |account: Option<&ServiceAccount>| account.is_some());
        tokio::time::timeout(PATIENCE, there).await.context("the namespace has got no service account")??;
        Ok(ground)
    }

    /// Makes the namespace.
    pub async fn make_namespace(&self) -> anyhow::Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let metadata = ObjectMeta { name: Some(self.namespace.clone()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        namespaces.create(&PostParams::default(), &namespace).await?;
        Ok(())
    }

    /// The pods of this run.
    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Takes a pod away, whatever holds it.
    pub async fn remove(&self, name: &str) -> anyhow::Result<()> {
        let pods = self.pods();
        let free = serde_json::json!({"metadata": {"finalizers": null}});
        let _ = pods.patch(name, &PatchParams::default(), &Patch::Merge(free)).await;
        let _ = pods.delete(name, &DeleteParams::default().grace_period(1)).await;
        let gone = await_condition(pods, name, |pod: Option<&Pod>| pod.is_none());
        tokio::time::timeout(PATIENCE, gone).await.with_context(|| format!("{name} does not go"))??;
        Ok(())
    }

    /// Takes everything of this run away.
    pub async fn sweep(&self) -> anyhow::Result<()> {
        for pod in self.pods().list(&ListParams::default()).await?.items {
            self.remove(pod.metadata.name.as_deref().unwrap_or_default()).await?;
        }
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces.delete(&self.namespace, &DeleteParams::default()).await?;
        Ok(())
    }
}
