//! A platform on a cluster: what its users wait for, what it writes, and what it weighs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use api_types::crd::Pool;
use clap::Args;
use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use e2e::ground::{Cluster, Setting};
use e2e::watch::until;
use futures::future::{join_all, try_join_all};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use opensandbox::{Client, ConnectionConfig, Sandbox};

use crate::audit;
use crate::figures::{Figure, machine, table};

const SEED: &str = include_str!("../../../../examples/pool-agent-production.yaml");
const POOL: &str = "bench";

/// Where the platform is, and how much is asked of it.
#[derive(Debug, Args)]
pub struct Options {
    /// Where the platform is, as `cargo xtask bench cluster` writes it down.
    #[arg(long, env = e2e::ground::SETTING)]
    setting: PathBuf,
    /// When `helm install` began, in milliseconds since 1970.
    #[arg(long)]
    begun: Option<i64>,
    /// Sandboxes created for each figure.
    #[arg(long, default_value_t = 100)]
    runs: usize,
    /// Pods of the pool, and so the most sandboxes at once.
    #[arg(long, default_value_t = 20)]
    pods: usize,
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(options))
}

async fn measure(options: &Options) -> Result<()> {
    let cluster = Cluster::reach(Setting::read(&options.setting)?).await?;
    let kube = cluster.client();
    let client = Client::new(ConnectionConfig::new(cluster.domain()).api_key(cluster.api_key()))?;
    let bench =
        Bench { pools: Api::namespaced(kube.clone(), &cluster.setting().namespace), client, pods: options.pods };
    println!("{}, Kubernetes {}\n", machine(), kube.apiserver_version().await?.git_version);

    bench.make_pool().await?;
    let outcome = bench.all(options).await;
    // The pods of a live pool, as long as there are some.
    let weights = weights(&kube, &cluster.setting().platform_namespace).await;
    bench.remove_pool().await?;
    let (figures, window) = outcome?;
    println!("{}\n", table(&figures));
    match audit_log(&cluster)? {
        Some(log) => println!("{}\n", writes(&log, &window)),
        None => println!("writes are not counted: the API server writes no audit log\n"),
    }
    println!("{}", weights?);
    Ok(())
}

/// The audit log, where there is one that can be read.
fn audit_log(cluster: &Cluster) -> Result<Option<String>> {
    let (Some(path), Ok(nodes)) = (&cluster.setting().audit_log, cluster.nodes()) else { return Ok(None) };
    nodes.shell(&nodes.control_plane()?, &format!("cat {path}")).map(Some)
}

/// When how many sandboxes were made and thrown away.
struct Window {
    from: jiff::Timestamp,
    to: jiff::Timestamp,
    sandboxes: usize,
}

/// A pool of a fixed size and who takes from it.
struct Bench {
    pools: Api<Pool>,
    client: Client,
    pods: usize,
}

impl Bench {
    /// The seed's pool with as many pods as it may ever have, so that a pod killed is a pod made anew.
    async fn make_pool(&self) -> Result<()> {
        let mut manifest: serde_json::Value = serde_saphyr::from_str(SEED)?;
        manifest["metadata"] = serde_json::json!({"name": POOL});
        manifest["spec"]["capacitySpec"] = serde_json::json!({
            "bufferMin": self.pods, "bufferMax": self.pods, "poolMin": self.pods, "poolMax": self.pods,
        });
        self.pools.patch(POOL, &PatchParams::apply("bench").force(), &Patch::Apply(&manifest)).await?;
        Ok(())
    }

    async fn remove_pool(&self) -> Result<()> {
        self.pools.delete(POOL, &DeleteParams::default()).await?;
        Ok(())
    }

    async fn full(&self) -> Result<()> {
        let pods = i32::try_from(self.pods)?;
        let full = |p: &Pool| p.status.as_ref().is_some_and(|s| s.available >= pods && s.allocated == 0);
        until(self.pools.clone(), POOL, "full", full).await?;
        Ok(())
    }

    async fn all(&self, options: &Options) -> Result<(Vec<Figure>, Window)> {
        self.full().await?;
        if let Some(begun) = options.begun {
            self.one(0).await?.sandbox.kill().await?;
            let took = jiff::Timestamp::now().duration_since(jiff::Timestamp::from_millisecond(begun)?);
            println!("helm install, a pool of {}, first sandbox and its end: {:.1} s\n", self.pods, took.as_secs_f64());
        }
        let from = jiff::Timestamp::now();
        let (figures, sandboxes) = self.figures(options.runs).await?;
        Ok((figures, Window { from, to: jiff::Timestamp::now(), sandboxes }))
    }

    /// Every figure, and how many sandboxes were made for them.
    async fn figures(&self, runs: usize) -> Result<(Vec<Figure>, usize)> {
        let mut figures = Vec::new();
        let mut sandboxes = 0;
        for at_once in [1, self.pods] {
            let mut create = Figure::new(format!("create from the pool to a live execd, {at_once} at a time"))?;
            let mut output = Figure::new(format!("create to first output, {at_once} at a time"))?;
            let mut command = Figure::new(format!("`true` on an open connection, {at_once} at a time"))?;
            let mut kill = Figure::new(format!("kill, {at_once} at a time"))?;
            let mut back = Figure::new(format!("kill of {} to a full pool", self.pods))?;
            let mut done = 0;
            while done < runs {
                self.full().await?;
                let mut held = Vec::new();
                while held.len() < self.pods && done < runs {
                    let count = at_once.min(runs - done).min(self.pods - held.len());
                    for run in try_join_all((0..count).map(|n| self.one(done + n))).await? {
                        create.add(run.create);
                        output.add(run.output);
                        command.add(run.command);
                        held.push(run.sandbox);
                    }
                    done += count;
                }
                let begun = Instant::now();
                let count = held.len();
                for part in held.chunks(at_once) {
                    let kills = part.iter().map(|sandbox| async {
                        let begun = Instant::now();
                        sandbox.kill().await.map(|()| begun.elapsed())
                    });
                    for took in join_all(kills).await {
                        kill.add(took?);
                    }
                }
                self.full().await?;
                if count == self.pods {
                    back.add(begun.elapsed());
                }
            }
            sandboxes += done;
            figures.extend([create, output, command, kill, back]);
        }
        figures.push(self.one_back(runs.div_ceil(10)).await?);
        sandboxes += runs.div_ceil(10);
        Ok((figures, sandboxes))
    }

    async fn one(&self, n: usize) -> Result<Run> {
        let agent = format!("agent-{n}");
        let begun = Instant::now();
        let sandbox = self
            .client
            .sandbox("nginx:latest")
            .pool(POOL)
            .env("AGENT_ID", &agent)
            .entrypoint(["/bin/sh", "-c", "sleep infinity"])
            .timeout(Duration::from_secs(600))
            .create()
            .await
            .context("cannot create from the pool")?;
        let create = begun.elapsed();
        let said = sandbox.commands().run("echo $AGENT_ID").await?;
        let output = begun.elapsed();
        ensure!(said.stdout_text().trim() == agent, "the sandbox of {agent} says {:?}", said.stdout_text());
        let begun = Instant::now();
        sandbox.commands().run("true").await?;
        Ok(Run { create, output, command: begun.elapsed(), sandbox })
    }

    /// One kill, until another pod is in the buffer.
    async fn one_back(&self, runs: usize) -> Result<Figure> {
        let mut back = Figure::new("kill to pod back in the buffer, 1 at a time")?;
        for n in 0..runs {
            self.full().await?;
            let run = self.one(n).await?;
            let begun = Instant::now();
            run.sandbox.kill().await?;
            self.full().await?;
            back.add(begun.elapsed());
        }
        Ok(back)
    }
}

/// One sandbox, and what it took.
struct Run {
    sandbox: Sandbox,
    create: Duration,
    output: Duration,
    command: Duration,
}

/// What each of our accounts wrote for a sandbox, from create to the pod that replaces its own.
fn writes(log: &str, window: &Window) -> Table {
    let counts = audit::writes(log, window.from, window.to);
    let mut rows = Table::new();
    rows.load_style(UTF8_BORDERS_ONLY).set_header(["account", "verb", "resource", "writes", "per sandbox"]);
    for (write, count) in counts {
        rows.add_row([
            write.account,
            write.verb,
            write.resource,
            count.to_string(),
            format!("{:.2}", count as f64 / window.sandboxes as f64),
        ]);
    }
    rows
}

/// Memory of our containers as each kubelet counts it, and the size of their images on its node.
async fn weights(kube: &kube::Client, namespace: &str) -> Result<Table> {
    let nodes = Api::<Node>::all(kube.clone()).list(&ListParams::default()).await?;
    let mut images = BTreeMap::new();
    let mut memory: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for node in &nodes {
        for image in node.status.iter().flat_map(|s| s.images.iter().flatten()) {
            let names = image.names.iter().flatten();
            images.extend(names.map(|name| (name.clone(), image.size_bytes.unwrap_or_default())));
        }
        let path = format!("/api/v1/nodes/{}/proxy/stats/summary", node.name_any());
        let summary: serde_json::Value = kube.request(http::Request::get(path).body(Vec::new())?).await?;
        for (pod, container) in containers(&summary) {
            let ours = pod["podRef"]["namespace"] == namespace || container["name"] == "task-executor";
            let bytes = container["memory"]["rssBytes"].as_u64();
            if let (true, Some(name), Some(bytes)) = (ours, container["name"].as_str(), bytes) {
                memory.entry(name.to_owned()).or_default().push(bytes);
            }
        }
    }
    let pods = Api::<Pod>::all(kube.clone()).list(&ListParams::default()).await?;
    let image_of: BTreeMap<String, String> = pods
        .iter()
        .flat_map(|pod| pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten()))
        .map(|container| (container.name.clone(), container.image.clone()))
        .collect();
    let mut rows = Table::new();
    rows.load_style(UTF8_BORDERS_ONLY).set_header(["container", "count", "resident, mean", "image"]);
    for (name, sizes) in memory {
        let mean = sizes.iter().sum::<u64>() as f64 / sizes.len() as f64;
        let image = image_of.get(&name).and_then(|image| images.get(image));
        rows.add_row([
            name,
            sizes.len().to_string(),
            mib(mean),
            image.map_or_else(|| "unknown".to_owned(), |bytes| mib(*bytes as f64)),
        ]);
    }
    Ok(rows)
}

fn containers(summary: &serde_json::Value) -> impl Iterator<Item = (&serde_json::Value, &serde_json::Value)> {
    let pods = summary["pods"].as_array().into_iter().flatten();
    pods.flat_map(|pod| pod["containers"].as_array().into_iter().flatten().map(move |container| (pod, container)))
}

fn mib(bytes: f64) -> String {
    format!("{:.1} MiB", bytes / f64::from(1 << 20))
}
