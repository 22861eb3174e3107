//! What an uninstallation leaves and what it takes, as the values said; nothing hangs on a finalizer.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api_types::crd::{BatchSandbox, Pool};
use api_types::names::labels;
use e2e::ground::{Cluster, Ground};
use e2e::watch::none_left;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::ListParams;
use kube::runtime::watcher;
use kube::{Api, ResourceExt as _};
use opensandbox::{Client, Sandbox};

use crate::kit::{create, output};
use crate::pools;

const LIMIT: Duration = Duration::from_secs(180);
const KINDS: [&str; 2] = ["pools.sandbox.opensandbox.io", "batchsandboxes.sandbox.opensandbox.io"];

pub async fn sandboxes_stay_when_the_values_say_so_and_the_next_release_has_them(ground: &Ground) -> Result<()> {
    let cluster = cluster(ground)?;
    let keep = ["--set", "uninstall.keepSandboxes=true", "--set", "auth.keep=true"];
    cluster.helm().upgrade(&keep)?.ok()?;
    cluster.ready().await?;
    pools::warm(ground, &pools::seed_like("stays", (2, 4), (2, 8))?, "stays", 2).await?;
    let held = try_join_all([create(ground, "stays"), create(ground, "stays")]).await?;
    let said = try_join_all(held.iter().map(|s| output(s, "hostname; cat /proc/sys/kernel/random/boot_id"))).await?;
    let before = pods(ground, "stays").await?;

    cluster.helm().uninstall(&[])?.ok()?;
    let after = pods(ground, "stays").await?;
    for sandbox in &held {
        let batches: Api<BatchSandbox> = Api::namespaced(cluster.client(), ground.namespace());
        let batch = batches.get(sandbox.id()).await.context("a kept sandbox is gone")?;
        ensure!(batch.metadata.deletion_timestamp.is_none(), "a kept sandbox is being deleted");
    }
    ensure!(before == after, "the pool's pods were {before:?} and are {after:?}");

    cluster.helm().upgrade(&keep)?.ok()?;
    cluster.ready().await?;
    cluster.refresh().await?;
    let client = Client::new(ground.connection())?;
    for (sandbox, said) in held.iter().zip(&said) {
        let found = client.connect(sandbox.id()).await.context("the next release does not know a kept sandbox")?;
        let now = output(&found, "hostname; cat /proc/sys/kernel/random/boot_id").await?;
        ensure!(now == *said, "the sandbox said {said:?} and now says {now:?}");
        found.kill().await?;
    }
    create(ground, "stays").await.context("the next release makes no sandbox")?.kill().await?;
    Ok(())
}

pub async fn everything_goes_when_the_values_say_so_and_nothing_hangs(ground: &Ground) -> Result<()> {
    let cluster = cluster(ground)?;
    let outcome = everything_goes(ground, cluster).await;
    // Whatever came of it, the next case finds a platform.
    let again = cluster.helm().upgrade(&[])?.ok();
    cluster.ready().await?;
    cluster.refresh().await?;
    outcome.and(again.map(drop))
}

async fn everything_goes(ground: &Ground, cluster: &Cluster) -> Result<()> {
    cluster.helm().upgrade(&["--set", "crds.keep=false"])?.ok()?;
    cluster.ready().await?;
    pools::warm(ground, &pools::seed_like("goes", (2, 4), (2, 8))?, "goes", 2).await?;
    let _held: Vec<Sandbox> = try_join_all([create(ground, "goes"), create(ground, "goes")]).await?;
    cluster.helm().uninstall(&[])?.ok()?;

    let crds: Api<CustomResourceDefinition> = Api::all(cluster.client());
    let ours = |crd: &CustomResourceDefinition| KINDS.contains(&crd.name_any().as_str());
    none_left(LIMIT, crds, watcher::Config::default(), "kinds", ours).await?;
    for label in [labels::POOL_NAME, labels::BATCH_NAME] {
        let pods: Api<Pod> = Api::all(cluster.client());
        none_left(LIMIT, pods, watcher::Config::default().labels(label), "pods", |_: &Pod| true).await?;
    }

    // Where the kinds are missing, an installation that may not make them says so.
    let said = cluster.helm().upgrade(&["--skip-crds", "--set", "crds.upgrade=false"])?.refused()?;
    ensure!(said.contains("CRD") && said.contains("kubectl apply"), "{said}");
    Ok(())
}

fn cluster(ground: &Ground) -> Result<&Cluster> {
    ground.cluster().context("this case needs a cluster")
}

/// UIDs of a pool's pods that are not on their way out.
async fn pods(ground: &Ground, pool: &str) -> Result<Vec<String>> {
    let pools = Api::<Pool>::namespaced(ground.client().await?, ground.namespace());
    pools.get(pool).await.context("the pool is gone")?;
    let pods = Api::<Pod>::namespaced(ground.client().await?, ground.namespace());
    let label = format!("{}={pool}", labels::POOL_NAME);
    let pods = pods.list(&ListParams::default().labels(&label)).await?;
    let mut uids: Vec<String> =
        pods.iter().filter(|p| p.metadata.deletion_timestamp.is_none()).filter_map(|p| p.uid()).collect();
    uids.sort();
    Ok(uids)
}
