//! A cluster on which a published controller ran: what lives stays, what was stuck goes.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api_types::crd::{BatchSandbox, Pool};
use e2e::ground::{Cluster, Ground};
use e2e::watch::{none_left, until};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use kube::runtime::watcher;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

const OBJECTS: &str = include_str!("../../../../crates/controller/tests/fixtures/upstream/objects.yaml");
const TERMINATING: &str = include_str!("../../../../crates/controller/tests/fixtures/upstream/terminating.yaml");

/// Pods of owners that keep them.
const HELD: [&str; 8] =
    ["warm-aaaaa", "warm-bbbbb", "warm-eeeee", "warm-ggggg", "warm-iiiii", "own-0", "own-1", "torn-aaaaa"];
/// Pods that somebody used and nobody may have again.
const USED: [&str; 3] = ["warm-fffff", "warm-hhhhh", "warm-jjjjj"];
/// Sandboxes that the published controller could not let go.
const STUCK: [&str; 4] = ["stuck-released", "stuck-poolless", "stuck-paused", "leaving"];

pub async fn what_a_published_controller_left_is_taken_over(ground: &Ground) -> Result<()> {
    let cluster = ground.cluster().context("this case needs a cluster")?;
    cluster.helm().upgrade(&["--set", "crds.keep=false"])?.ok()?;
    cluster.helm().uninstall(&[])?.ok()?;
    for name in ["pools.yaml", "batchsandboxes.yaml"] {
        let ours = std::fs::read_to_string(cluster.setting().chart.join("crds").join(name))?;
        ground.kubectl_ok(&["create", "-f", "-"], &published(serde_saphyr::from_str(&ours)?)?.to_string())?;
    }
    let established = ["wait", "--for=condition=Established", "--timeout=60s", "crd"];
    let names = ["pools.sandbox.opensandbox.io", "batchsandboxes.sandbox.opensandbox.io"];
    ground.kubectl_ok(&[&established[..], &names[..]].concat(), "")?;
    let outcome = taken_over(ground, cluster).await;
    // The fixture's pools are nobody's of the suite; with them go their pods.
    for name in ["warm", "torn"] {
        ground.kubectl_ok(&["delete", "pool", name, "--ignore-not-found", "--timeout=120s"], "")?;
    }
    let again = cluster.helm().upgrade(&[])?.ok();
    cluster.ready().await?;
    cluster.refresh().await?;
    outcome.and(again.map(drop))
}

async fn taken_over(ground: &Ground, cluster: &Cluster) -> Result<()> {
    let uids = create_all(ground, cluster).await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client(), ground.namespace());
    let not_running = |pod: &Pod| {
        uids.contains_key(&format!("Pod/{}", pod.name_any()))
            && pod.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Running")
    };
    let everything = watcher::Config::default;
    none_left(Duration::from_secs(180), pods.clone(), everything(), "pods that do not run", not_running).await?;

    cluster.helm().upgrade(&["--set", "crds.adopt=true", "--take-ownership"])?.ok()?;
    cluster.ready().await?;
    cluster.refresh().await?;

    let batches: Api<BatchSandbox> = Api::namespaced(cluster.client(), ground.namespace());
    let stuck = |batch: &BatchSandbox| STUCK.contains(&batch.name_any().as_str());
    none_left(Duration::from_secs(120), batches.clone(), everything(), "stuck sandboxes", stuck).await?;
    let used = |pod: &Pod| USED.contains(&pod.name_any().as_str());
    none_left(Duration::from_secs(120), pods.clone(), everything(), "used pods", used).await?;
    until(batches.clone(), "broken", "told that it is malformed", |batch| {
        let conditions = batch.status.iter().flat_map(|s| &s.conditions);
        conditions.into_iter().any(|c| c.reason.as_deref() == Some("MalformedAllocation"))
    })
    .await?;
    for (name, wanted) in [("alive", 1), ("pair", 3), ("heir", 1), ("working", 1), ("own", 2)] {
        let known = |b: &BatchSandbox| b.status.as_ref().is_some_and(|s| s.grants.len() == wanted && s.phase.is_some());
        until(batches.clone(), name, "taken over", known).await?;
    }

    // Who comes now gets the idle pod of before or a new one.
    let new = json!({
        "apiVersion": "sandbox.opensandbox.io/v1alpha1", "kind": "BatchSandbox", "metadata": {"name": "new"},
        "spec": {"poolRef": "warm", "replicas": 1},
    });
    ground.kubectl_ok(&["create", "-f", "-"], &new.to_string())?;
    let granted = |b: &BatchSandbox| b.status.as_ref().is_some_and(|s| !s.grants.is_empty());
    let new = until(batches.clone(), "new", "given a pod", granted).await?;
    let given = new.status.map(|s| s.grants).unwrap_or_default();
    ensure!(given.iter().all(|g| !HELD.contains(&g.pod.as_str())), "a held pod was given away: {given:?}");

    let now: BTreeMap<String, String> = pods
        .list(&ListParams::default())
        .await?
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .filter_map(|pod| Some((pod.name_any(), pod.uid()?)))
        .collect();
    for name in HELD {
        let before = uids.get(&format!("Pod/{name}"));
        ensure!(now.get(name) == before, "{name} was {before:?} and is {:?}", now.get(name));
    }
    ensure!(!now.contains_key("paused-0"), "a paused sandbox has got a pod");
    let pools: Api<Pool> = Api::namespaced(cluster.client(), ground.namespace());
    let counted =
        |p: &Pool| p.status.as_ref().is_some_and(|s| s.total == s.allocated + s.available && s.available >= 1);
    until(pools, "warm", "counted anew", counted).await?;

    for batch in batches.list(&ListParams::default()).await? {
        batches.delete(&batch.name_any(), &DeleteParams::default()).await?;
    }
    none_left(Duration::from_secs(120), batches, everything(), "sandboxes", |_: &BatchSandbox| true).await
}

/// Our CRD as its forerunner was: nobody's release, and a status without what is ours.
fn published(mut crd: Value) -> Result<Value> {
    crd["metadata"] = json!({"name": crd["metadata"]["name"]});
    let version = &mut crd["spec"]["versions"][0];
    let status = &mut version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"];
    let status = status.as_object_mut().context("the CRD has no status")?;
    for ours in ["grants", "observedAt", "conditions"] {
        status.remove(ours);
    }
    Ok(crd)
}

/// Creates the fixture's objects, as its README says, and gives their UIDs by `Kind/name`.
async fn create_all(ground: &Ground, cluster: &Cluster) -> Result<BTreeMap<String, String>> {
    let mut uids = BTreeMap::new();
    create(ground, cluster, OBJECTS, &mut uids).await?;
    for name in create(ground, cluster, TERMINATING, &mut uids).await? {
        if let Some(name) = name.strip_prefix("BatchSandbox/") {
            api(ground, cluster, "BatchSandbox").delete(name, &DeleteParams::default()).await?;
        }
    }
    Ok(uids)
}

fn api(ground: &Ground, cluster: &Cluster, kind: &str) -> Api<DynamicObject> {
    let (group, version, plural) = match kind {
        "Pod" => ("", "v1", "pods"),
        "Pool" => ("sandbox.opensandbox.io", "v1alpha1", "pools"),
        _ => ("sandbox.opensandbox.io", "v1alpha1", "batchsandboxes"),
    };
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    Api::namespaced_with(cluster.client(), ground.namespace(), &resource)
}

async fn create(
    ground: &Ground,
    cluster: &Cluster,
    text: &str,
    uids: &mut BTreeMap<String, String>,
) -> Result<Vec<String>> {
    let mut created = Vec::new();
    for document in text.split("\n---\n").skip(1) {
        let filled =
            uids.iter().fold(document.to_owned(), |text, (name, uid)| text.replace(&format!("@uid({name})@"), uid));
        let mut value: Value = serde_saphyr::from_str(&filled)?;
        let status = value.as_object_mut().context("a document is an object")?.remove("status");
        let kind = value["kind"].as_str().context("an object has a kind")?.to_owned();
        let api = api(ground, cluster, &kind);
        let object: DynamicObject = serde_json::from_value(value)?;
        let key = format!("{kind}/{}", object.name_any());
        let made = api.create(&PostParams::default(), &object).await.with_context(|| format!("cannot create {key}"))?;
        if let Some(status) = status {
            let patch = json!({"status": status});
            api.patch_status(&made.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await?;
        }
        uids.insert(key.clone(), made.uid().context("a created object has a UID")?);
        created.push(key);
    }
    Ok(created)
}
