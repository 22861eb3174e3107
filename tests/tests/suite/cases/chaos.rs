//! Deaths in the middle of many creates: each create ends in a sandbox or a typed error, and nothing is orphaned.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use api_types::crd::{BatchSandbox, Pool};
use api_types::names::labels;
use e2e::ground::{Cluster, Component, Ground};
use e2e::watch::{none_left, until};
use futures::StreamExt as _;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use opensandbox::{Client, ConnectionConfig, Error, ListSandboxes, Sandbox};
use tokio::sync::watch;

use crate::kit::{create_at, output};
use crate::pools;

/// Creates in which something dies.
const CREATES: usize = 40;
/// Creates at a time.
const AT_ONCE: usize = 20;

pub async fn creates_end_when_the_controller_dies(ground: &Ground) -> Result<()> {
    survive(ground, "chaos-controller", Blow::Component(Component::Controller)).await
}

pub async fn creates_end_when_a_server_dies(ground: &Ground) -> Result<()> {
    survive(ground, "chaos-server", Blow::Component(Component::Server)).await
}

pub async fn creates_end_when_the_api_server_dies(ground: &Ground) -> Result<()> {
    survive(ground, "chaos-api", Blow::ApiServer).await
}

pub async fn creates_end_when_a_node_stops(ground: &Ground) -> Result<()> {
    survive(ground, "chaos-node", Blow::Node).await
}

/// What dies.
#[derive(Debug, Clone, Copy)]
enum Blow {
    Component(Component),
    ApiServer,
    Node,
}

/// What has to be mended after a blow.
enum Wound {
    Component(Component),
    ApiServer,
    Node(String),
}

/// Chance, to be had again: `OPENSANDBOX_E2E_SEED` names it.
fn seed() -> Result<u64> {
    match std::env::var("OPENSANDBOX_E2E_SEED") {
        Ok(text) => text.parse().context("OPENSANDBOX_E2E_SEED is no number"),
        Err(_) => Ok(u64::from(jiff::Timestamp::now().subsec_nanosecond().unsigned_abs())),
    }
}

async fn survive(ground: &Ground, pool: &str, blow: Blow) -> Result<()> {
    pools::warm(ground, &pools::seed_like(pool, (10, 20), (10, 60))?, pool, 10).await?;
    let domain = match ground.cluster() {
        Some(cluster) => cluster.way_in().await?.domain().to_owned(),
        None => ground.domain(),
    };
    let connection = ConnectionConfig::new(domain).api_key(ground.api_key()).request_timeout(Duration::from_secs(60));
    let seed = seed()?;
    let moment = 3 + (seed % 20) as usize;
    println!("{blow:?} dies after {moment} creates (OPENSANDBOX_E2E_SEED={seed})");

    let (ended, mut ends) = watch::channel(0);
    let creates = futures::stream::iter(0..CREATES).map(|n| {
        let (ended, connection) = (ended.clone(), connection.clone());
        async move {
            let agent = format!("agent-{n}");
            let outcome = create_at(connection, pool, &agent).await;
            ended.send_modify(|count| *count += 1);
            (agent, outcome)
        }
    });
    let creates = creates.buffer_unordered(AT_ONCE).collect::<BTreeMap<String, Result<Sandbox, Error>>>();
    let strike = async {
        ends.wait_for(|count| *count >= moment).await?;
        strike(ground, pool, blow, seed).await
    };
    let both = tokio::time::timeout(Duration::from_secs(400), async { tokio::join!(creates, strike) }).await;
    let (outcomes, wound) = both.context("a create does not end")?;
    mend(ground, wound?).await?;

    let failed: BTreeMap<&String, &Error> = outcomes.iter().filter_map(|(n, o)| Some((n, o.as_ref().err()?))).collect();
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    failed.values().for_each(|error| *reasons.entry(error.to_string()).or_default() += 1);
    println!("{} of {CREATES} creates gave a sandbox; the others: {reasons:?}", CREATES - failed.len());
    for (agent, error) in &failed {
        typed(error).with_context(|| format!("create of {agent}"))?;
    }
    // After the blow a ground may be somewhere else.
    let connection = match (ground.cluster(), blow) {
        (Some(_), _) => connection,
        (None, _) => ground.connection(),
    };
    let client = Client::new(connection)?;
    let sandboxes: Vec<&Sandbox> = outcomes.values().filter_map(|o| o.as_ref().ok()).collect();
    answer(&client, &sandboxes, blow).await?;
    traceable(&client, pool, &outcomes).await?;
    clear(ground, &client, pool).await
}

async fn strike(ground: &Ground, pool: &str, blow: Blow, seed: u64) -> Result<Wound> {
    match blow {
        Blow::Component(component) => {
            ground.crash(component).await?;
            // Where nobody else starts it again, somebody has to.
            if ground.cluster().is_none() {
                ground.recover(component).await?;
            }
            Ok(Wound::Component(component))
        }
        Blow::ApiServer => {
            let nodes = cluster(ground)?.nodes()?;
            nodes.kill_container(&nodes.control_plane()?, "--name '^kube-apiserver$'")?;
            Ok(Wound::ApiServer)
        }
        Blow::Node => {
            let pods = Api::<Pod>::namespaced(ground.client().await?, ground.namespace());
            let pods = pods.list(&ListParams::default().labels(&format!("pool={pool}"))).await?;
            let used: BTreeSet<String> =
                pods.iter().filter_map(|pod| pod.spec.as_ref().and_then(|s| s.node_name.clone())).collect();
            let workers: Vec<String> =
                cluster(ground)?.nodes()?.of_role("worker")?.into_iter().filter(|name| used.contains(name)).collect();
            ensure!(!workers.is_empty(), "no worker has a pod of the pool");
            let node = workers[seed as usize % workers.len()].clone();
            println!("node {node} stops");
            cluster(ground)?.nodes()?.stop(&node)?;
            Ok(Wound::Node(node))
        }
    }
}

fn cluster(ground: &Ground) -> Result<&Cluster> {
    ground.cluster().context("this case needs a cluster")
}

async fn mend(ground: &Ground, wound: Wound) -> Result<()> {
    match wound {
        Wound::Component(component) if ground.cluster().is_some() => ground.recover(component).await,
        Wound::Component(_) => Ok(()),
        Wound::ApiServer => cluster(ground)?.ready().await,
        Wound::Node(name) => {
            cluster(ground)?.nodes()?.start(&name)?;
            let nodes: Api<Node> = Api::all(ground.client().await?);
            until(nodes, &name, "ready", |node| {
                let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
                conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
            })
            .await?;
            cluster(ground)?.ready().await
        }
    }
}

/// An error that a program can act on: a code of the catalogue, a broken connection, a deadline.
fn typed(error: &Error) -> Result<()> {
    match error {
        Error::Api(_) if error.code().is_some() => Ok(()),
        Error::Connection { .. } | Error::Timeout { .. } | Error::NotReady { .. } => Ok(()),
        other => bail!("the error has no type: {other:?}"),
    }
}

/// Every sandbox that was given works; one whose node has stopped may be lost, and then says so.
async fn answer(client: &Client, sandboxes: &[&Sandbox], blow: Blow) -> Result<()> {
    let says = sandboxes.iter().map(|sandbox| async {
        let sandbox = client.attach(sandbox.id());
        match output(&sandbox, "echo well").await {
            Ok(said) => ensure!(said == "well", "{} said {said:?}", sandbox.id()),
            Err(error) if matches!(blow, Blow::Node) => {
                let told = sandbox.info().await.map(|info| info.status);
                let lost = match &told {
                    Ok(status) => status.state == "Failed",
                    Err(error) => error.status() == Some(404),
                };
                ensure!(lost, "{} answers {error:#}, but its state is {told:?}", sandbox.id());
            }
            Err(error) => return Err(error.context(format!("sandbox {}", sandbox.id()))),
        }
        Ok(())
    });
    join_all(says).await.into_iter().collect()
}

/// Every sandbox that exists was given to somebody, or belongs to a create whose client could not learn how it ended.
async fn traceable(client: &Client, pool: &str, outcomes: &BTreeMap<String, Result<Sandbox, Error>>) -> Result<()> {
    let mut listed = std::pin::pin!(client.list_all(ListSandboxes::new()));
    let mut unknown = 0;
    while let Some(info) = listed.next().await {
        let info = info?;
        let Some(agent) = info.metadata.as_ref().and_then(|m| m.get("agent")) else { continue };
        match outcomes.get(agent) {
            Some(Ok(sandbox)) if sandbox.id() == info.id.as_str() => {}
            Some(Err(Error::Connection { .. } | Error::Timeout { .. })) => unknown += 1,
            // A refused create may be on its way out.
            Some(Err(_)) if info.status.state == "Stopping" || info.status.state == "Terminated" => {}
            outcome => bail!("sandbox {} of {agent} in {pool} is nobody's: {outcome:?}, {:?}", info.id, info.status),
        }
    }
    if unknown > 0 {
        println!("{unknown} sandboxes belong to creates whose connection broke before the answer");
    }
    Ok(())
}

/// After everything is killed there is no sandbox of the pool, and every pod of it is idle.
async fn clear(ground: &Ground, client: &Client, pool: &str) -> Result<()> {
    let kube = ground.client().await?;
    let batches: Api<BatchSandbox> = Api::namespaced(kube.clone(), ground.namespace());
    for batch in batches.list(&ListParams::default()).await? {
        if batch.spec.pool_ref.as_deref() == Some(pool) {
            match client.kill(&batch.name_any()).await {
                Err(error) if error.status() == Some(404) => {}
                outcome => outcome.with_context(|| format!("kill of {}", batch.name_any()))?,
            }
        }
    }
    let ours = |batch: &BatchSandbox| batch.spec.pool_ref.as_deref() == Some(pool);
    let limit = Duration::from_secs(180);
    none_left(limit, batches, watcher::Config::default(), "sandboxes of the pool", ours).await?;
    let pools: Api<Pool> = Api::namespaced(kube.clone(), ground.namespace());
    let rest = until(pools, pool, "at rest", |p| {
        p.status.as_ref().is_some_and(|s| s.allocated == 0 && s.available == s.total && s.available >= 10)
    })
    .await?;
    let label = format!("{}={pool}", labels::POOL_NAME);
    let pods = Api::<Pod>::namespaced(kube, ground.namespace()).list(&ListParams::default().labels(&label)).await?;
    let living: Vec<&Pod> = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
    let total = rest.status.map(|s| s.total).unwrap_or_default();
    ensure!(living.len() == total as usize, "the pool counts {total} pods, and there are {}", living.len());
    let held: Vec<_> =
        living.iter().filter(|pod| pod.labels().contains_key(labels::CLAIMED_BY)).map(|pod| pod.name_any()).collect();
    ensure!(held.is_empty(), "pods are claimed by sandboxes that are gone: {held:?}");
    Ok(())
}
