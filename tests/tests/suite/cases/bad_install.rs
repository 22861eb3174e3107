//! Installations and surroundings that cannot work: each says what is wrong and what to do.

use anyhow::{Context as _, Result, ensure};
use api_types::crd::Pool;
use e2e::ground::{Cluster, Ground, tool};
use e2e::watch::until;
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::kit::try_create;
use crate::pools;

pub async fn wrong_values_are_refused_with_their_names(ground: &Ground) -> Result<()> {
    let cluster = cluster(ground)?;
    for (wrong, words) in [
        (&["--set", "controller.replicas=many"][..], &["controller", "replicas"][..]),
        (&["--set", "controler.replicas=2"], &["controler"]),
        (&["--set", "server.endpoints=sideways"], &["endpoints"]),
        (&["--set", "controller.leaderElection=false"], &["leaderElection", "controller.replicas=1"]),
        (&["--set", "rbac.scope=namespaces"], &["rbac.namespaces"]),
        (&["--set", "auth.existingSecret=nowhere"], &["nowhere", "kubectl create secret"]),
        (&["--set", "sandboxes.namespace=nowhere"], &["nowhere", "kubectl create namespace"]),
        (&["--set-json", r#"pools=[{"metadata":{"name":"empty"},"spec":{}}]"#], &["pools"]),
    ] {
        let before = cluster.helm().says(&["history", &cluster.setting().release, "-o", "json"])?.ok()?;
        let said = cluster.helm().upgrade(wrong)?.refused()?;
        for word in words {
            ensure!(said.contains(word), "{wrong:?} is answered without {word:?}: {said}");
        }
        let after = cluster.helm().says(&["history", &cluster.setting().release, "-o", "json"])?.ok()?;
        ensure!(before == after, "{wrong:?} has changed the release");
    }
    Ok(())
}

pub async fn an_old_kubernetes_is_refused_with_the_oldest_that_works(ground: &Ground) -> Result<()> {
    let setting = cluster(ground)?.setting();
    let mut helm = std::process::Command::new("helm");
    helm.args(["template", "opensandbox"]).arg(&setting.chart).arg("--values").arg(&setting.values);
    let said = tool::says(helm.args(["--kube-version", "1.24.0"]), "")?.refused()?;
    ensure!(said.contains("1.24") && said.contains("1.25"), "{said}");
    Ok(())
}

pub async fn a_namespace_that_forbids_privileges_is_named(ground: &Ground) -> Result<()> {
    let namespace = Scratch::new(ground, json!({"pod-security.kubernetes.io/enforce": "restricted"}))?;
    // By the chart, before anything is changed.
    let seed = manifest(&pools::seed_like("forbidden", (1, 2), (1, 4))?, namespace.name())?;
    let said = cluster(ground)?.helm().upgrade(&["--set-json", &format!("pools=[{seed}]")])?.refused()?;
    ensure!(said.contains("SYS_PTRACE") && said.contains("pod-security.kubernetes.io/enforce"), "{said}");
    // By the pool, when it is there anyhow.
    ground.kubectl_ok(&["apply", "-n", namespace.name(), "-f", "-"], &seed)?;
    let said = condition(ground, namespace.name(), "forbidden", &["PodSecurity", "pod-security.kubernetes.io"]).await?;
    println!("{said}");
    Ok(())
}

pub async fn an_image_that_cannot_be_pulled_is_named_to_pool_and_client(ground: &Ground) -> Result<()> {
    const IMAGE: &str = "no.such.registry.invalid/no/image:1";
    let mut pool: serde_json::Value = serde_json::from_str(&pools::seed_like("unpullable", (1, 2), (1, 4))?)?;
    pool["spec"]["template"]["spec"]["containers"][0]["image"] = IMAGE.into();
    ground.kubectl_ok(&["apply", "-f", "-"], &pool.to_string())?;
    let said = condition(ground, ground.namespace(), "unpullable", &[IMAGE, "ImagePull"]).await?;
    println!("{said}");
    let error = try_create(ground, "unpullable", "agent").await.err().context("a pod without image is a sandbox")?;
    let text = format!("{error}");
    ensure!(error.code().is_some() && text.contains(IMAGE), "the create's error does not name the image: {error:?}");
    Ok(())
}

pub async fn a_volume_without_a_storage_class_is_told(ground: &Ground) -> Result<()> {
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "e2e-unbound"},
        // None at all, as a claim is that names none where the cluster has no default.
        "spec": {"accessModes": ["ReadWriteMany"], "storageClassName": "", "resources": {"requests": {"storage": "1Mi"}}},
    });
    ground.kubectl_ok(&["apply", "-f", "-"], &claim.to_string())?;
    let outcome = unbound(ground).await;
    // The claim is held until no pod uses it.
    ground.kubectl_ok(&["delete", "pool", "unbound", "--ignore-not-found", "--timeout=120s"], "")?;
    ground.kubectl_ok(&["delete", "pvc", "e2e-unbound", "--timeout=120s"], "")?;
    outcome
}

async fn unbound(ground: &Ground) -> Result<()> {
    let mut pool: serde_json::Value = serde_json::from_str(&pools::seed_like("unbound", (1, 2), (1, 4))?)?;
    let spec = &mut pool["spec"]["template"]["spec"];
    let claim = json!({"name": "data", "persistentVolumeClaim": {"claimName": "e2e-unbound"}});
    spec["volumes"].as_array_mut().context("the seed has volumes")?.push(claim);
    ground.kubectl_ok(&["apply", "-f", "-"], &pool.to_string())?;
    let error = try_create(ground, "unbound", "agent").await.err().context("a pod without volume is a sandbox")?;
    println!("{error}");
    let text = format!("{error}");
    ensure!(error.code().is_some() && text.contains("StorageClass"), "the error does not say what to do: {error:?}");
    Ok(())
}

fn cluster(ground: &Ground) -> Result<&Cluster> {
    ground.cluster().context("this case needs a cluster")
}

/// A manifest in another namespace.
fn manifest(text: &str, namespace: &str) -> Result<String> {
    let mut value: serde_json::Value = serde_json::from_str(text)?;
    value["metadata"]["namespace"] = namespace.into();
    Ok(value.to_string())
}

/// Waits until a condition of a pool has all words, and gives its message.
async fn condition(ground: &Ground, namespace: &str, pool: &str, words: &[&str]) -> Result<String> {
    let pools: Api<Pool> = Api::namespaced(ground.client().await?, namespace);
    let says = |p: &Pool| {
        let conditions = p.status.iter().flat_map(|s| &s.conditions);
        let mut texts = conditions.map(|c| {
            format!("{}: {}", c.reason.as_deref().unwrap_or_default(), c.message.as_deref().unwrap_or_default())
        });
        texts.find(|text| words.iter().all(|word| text.contains(word)))
    };
    let told = until(pools, pool, &format!("saying {words:?}"), |p| says(p).is_some()).await?;
    says(&told).with_context(|| format!("pool {} says nothing", told.name_any()))
}

/// A namespace that goes with the case.
struct Scratch<'a> {
    ground: &'a Ground,
    name: String,
}

impl<'a> Scratch<'a> {
    fn new(ground: &'a Ground, labels: serde_json::Value) -> Result<Self> {
        let name = format!("e2e-{}", std::process::id());
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
        ground.kubectl_ok(&["apply", "-f", "-"], &namespace.to_string())?;
        Ok(Self { ground, name })
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        let gone = self.ground.kubectl_ok(&["delete", "namespace", &self.name, "--timeout=120s"], "");
        if let Err(error) = gone {
            eprintln!("namespace {} stays: {error:#}", self.name);
        }
    }
}
