//! The embedded platform: what its user waits for, and what it weighs.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use api_types::crd::{BatchSandbox, Pool};
use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use e2e::platform::{Platform, until};
use futures::StreamExt as _;
use futures::future::join_all;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Api, ResourceExt as _};
use opensandbox::{Client, Sandbox};

use crate::figures::{Figure, machine, table};

const POOL: &str = include_str!("../../../../examples/pool-agent-production.yaml");
const NAME: &str = "bench";
/// Sandboxes held before they are killed and the buffer is filled again.
const ROUND: u32 = 10;
const BUFFER: i32 = 20;

/// Measures and prints.
pub fn run(binaries: &Path, runs: u32) -> Result<()> {
    e2e::platform::use_binaries(binaries);
    println!("{}\n", machine());
    let mut figures = vec![up_and_down(runs.div_ceil(10))?];
    let platform = Platform::start()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let writes = runtime.block_on(async {
        figures.extend(creates(&platform, runs).await?);
        writes(&platform).await
    })?;
    println!("{}", table(&figures));
    println!("writes on the BatchSandbox per pooled create: {writes}\n");
    println!("{}", weights(&platform, binaries)?);
    Ok(())
}

/// `osb up` to API ready, as the process itself tells it.
fn up_and_down(runs: u32) -> Result<Figure> {
    let mut figure = Figure::new("osb up to API ready")?;
    for _ in 0..runs {
        let begun = Instant::now();
        let platform = Platform::start()?;
        figure.add(begun.elapsed());
        drop(platform);
    }
    Ok(figure)
}

async fn creates(platform: &Platform, runs: u32) -> Result<Vec<Figure>> {
    let mut manifest: serde_json::Value = serde_saphyr::from_str(POOL)?;
    manifest["metadata"]["name"] = NAME.into();
    manifest["spec"]["capacitySpec"] =
        serde_json::json!({"bufferMin": BUFFER, "bufferMax": BUFFER, "poolMin": BUFFER, "poolMax": 10 * BUFFER});
    let pools: Api<Pool> = Api::namespaced(platform.client().await?, "default");
    pools.patch(NAME, &PatchParams::apply("bench").force(), &Patch::Apply(&manifest)).await?;
    let client = Client::new(platform.connection())?;

    let mut create = Figure::new("create from the pool, Running with a live execd")?;
    let mut first_output = Figure::new("create from the pool to first output")?;
    let mut exec = Figure::new("exec true on an open connection, to the end of the stream")?;
    let mut image = Figure::new("create from an image")?;
    let mut done = 0;
    while done < runs {
        until(pools.clone(), NAME, "warm", |p| {
            p.status.as_ref().is_some_and(|s| s.available >= BUFFER && s.allocated == 0)
        })
        .await?;
        let mut held = Vec::new();
        for n in 0..ROUND.min(runs - done) {
            let begun = Instant::now();
            let sandbox = pooled(&client, n).create().await.context("cannot create from the pool")?;
            create.add(begun.elapsed());
            sandbox.commands().run("echo $AGENT_ID").await?;
            first_output.add(begun.elapsed());
            let begun = Instant::now();
            sandbox.commands().run("true").await?;
            exec.add(begun.elapsed());
            held.push(sandbox);
        }
        done += ROUND;
        join_all(held.iter().map(Sandbox::kill)).await;
    }
    for _ in 0..runs {
        let begun = Instant::now();
        let sandbox = client
            .sandbox("host")
            .entrypoint(["sleep", "infinity"])
            .resource("cpu", "500m")
            .resource("memory", "256Mi")
            .create()
            .await
            .context("cannot create from an image")?;
        image.add(begun.elapsed());
        sandbox.kill().await?;
    }
    Ok(vec![create, first_output, exec, image])
}

fn pooled(client: &Client, n: u32) -> opensandbox::SandboxBuilder {
    client
        .sandbox("nginx:latest")
        .pool(NAME)
        .env("AGENT_ID", format!("agent-{n}"))
        .entrypoint(["/bin/sh", "-c", "sleep infinity"])
        .timeout(Duration::from_secs(600))
}

/// Versions that one create and its aftermath give the BatchSandbox.
async fn writes(platform: &Platform) -> Result<usize> {
    let batches: Api<BatchSandbox> = Api::namespaced(platform.client().await?, "default");
    let mut events = watcher(batches, watcher::Config::default()).boxed();
    // The watch must stand before the create, or it shows only what came of it.
    while !matches!(events.next().await.context("no watch")?, Ok(watcher::Event::InitDone)) {}
    let client = Client::new(platform.connection())?;
    let sandbox = pooled(&client, 0).create().await?;
    let mut versions = std::collections::HashSet::new();
    // At rest no write is made: a second without one ends the count.
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_secs(1), events.next()).await {
        if let Ok(watcher::Event::Apply(batch)) = event
            && batch.name_any() == sandbox.id()
        {
            versions.extend(batch.resource_version());
        }
    }
    sandbox.kill().await?;
    Ok(versions.len())
}

/// Resident memory of each kind of process, and the size of each binary.
fn weights(platform: &Platform, binaries: &Path) -> Result<Table> {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(["process", "count", "resident, mean", "binary"]);
    let mut kinds: HashMap<String, Vec<u64>> = HashMap::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        let Ok(words) = std::fs::read(format!("/proc/{pid}/cmdline")) else { continue };
        let words: Vec<_> = words.split(|b| *b == 0).map(String::from_utf8_lossy).collect();
        let name = words[0].rsplit('/').next().unwrap_or_default();
        let kind = match name {
            "execd" | "task-executor" => name.to_owned(),
            _ if pid == platform.pid() => "osb up".to_owned(),
            _ if words.get(1).is_some_and(|w| w == "__shim") => "osb __shim".to_owned(),
            _ => continue,
        };
        kinds.entry(kind).or_default().extend(resident_kib(pid));
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort();
    for (kind, sizes) in kinds {
        let mean = sizes.iter().sum::<u64>() as f64 / sizes.len().max(1) as f64 / 1024.0;
        let binary = binaries.join(kind.split(' ').next().unwrap_or_default());
        let bytes = std::fs::metadata(&binary).with_context(|| format!("no {}", binary.display()))?.len();
        table.add_row([
            kind,
            sizes.len().to_string(),
            format!("{mean:.1} MiB"),
            format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
        ]);
    }
    Ok(table)
}

fn resident_kib(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}
