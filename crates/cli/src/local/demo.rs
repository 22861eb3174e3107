//! `osb demo`: from nothing to an agent's output, with what each step took.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use api_types::crd::{BatchSandbox, GrantState, Pool};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets::UTF8_BORDERS_ONLY};
use futures::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use opensandbox::{ConnectionConfig, Sandbox};

use super::detach::{self, Ready};
use super::home::{Home, require_root};
use super::{down, up};

/// The pool that the demo runs on, as it lies in `examples/`.
const POOL: &str = include_str!("../../../../examples/pool-agent-production.yaml");
const POOL_NAME: &str = "agent-pool";
const NAMESPACE: &str = "default";
const AGENT: &str = "agent-1";
const TASK: &str = "echo hello from $AGENT_ID; hostname";

/// How long one step may take on a slow machine.
const STEP_LIMIT: Duration = Duration::from_secs(180);

/// What `osb demo` may be told.
#[derive(Debug, Args)]
pub struct Options {
    /// Keep the platform up, and print how to reach it.
    #[arg(long)]
    stay: bool,
}

/// Runs the demo. Without `--stay` it leaves nothing behind, also when it fails.
pub fn run(options: &Options) -> Result<ExitCode> {
    require_root("demo")?;
    let pool: Pool = serde_saphyr::from_str(POOL).context("the example pool is damaged")?;
    if options.stay {
        let home = Home::from_environment();
        let ready = start(&home, &["--stand-in", "*=host"])?;
        walk(&home, &ready, &pool)?;
        up::print_ready(&home, &ready);
        anstream::println!("  osb down");
        return Ok(ExitCode::SUCCESS);
    }
    let directory =
        tempfile::Builder::new().prefix("osb-demo-").tempdir().context("cannot make a directory for the demo")?;
    let home = Home::at(directory.path());
    let walked = start(&home, &["--stand-in", "*=host", "--listen", "127.0.0.1:0", "--kube-listen", "127.0.0.1:0"])
        .and_then(|ready| walk(&home, &ready, &pool));
    let ended = down::end(&home, false).context("cannot clean up");
    walked.and(ended)?;
    anstream::println!(
        "\nthe platform has ended and nothing of it is left. Go on with:\n  cargo xtask demo --stay     the same, and the platform stays up\n  osb up                      a platform to work with\n  docs/guide.md               what else there is"
    );
    Ok(ExitCode::SUCCESS)
}

fn start(home: &Home, arguments: &[&str]) -> Result<Ready> {
    let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
    let ready = detach::start(home, &arguments)?;
    anstream::println!("the platform is up on {} (Kubernetes API on {})", ready.domain, ready.kubernetes);
    Ok(ready)
}

/// Applies the pool, runs the agent, and prints what came and what it took.
fn walk(home: &Home, ready: &Ready, pool: &Pool) -> Result<()> {
    super::runtime()?.block_on(async {
        let client = super::client(home).await?;
        let mut took = vec![("API ready", ready.took_ms)];
        let buffer = warm_up(&client, pool, &mut took).await?;
        let output = agent(&client, ready, buffer, &mut took).await?;
        anstream::println!("\nthe agent's output:");
        for line in output.lines() {
            anstream::println!("  {line}");
        }
        anstream::println!("\n{}", table(&took));
        Ok(())
    })
}

/// Applies the pool and waits until its buffer is warm and at rest. Gives the number of warm pods.
async fn warm_up(client: &Client, pool: &Pool, took: &mut Vec<(&'static str, f64)>) -> Result<i32> {
    let pools: Api<Pool> = Api::namespaced(client.clone(), NAMESPACE);
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let applied = Instant::now();
    pools
        .patch(POOL_NAME, &PatchParams::apply("osb-demo").force(), &Patch::Apply(pool))
        .await
        .context("cannot apply the pool")?;
    let capacity = pool.spec.capacity_spec;
    let resting = ((capacity.buffer_min + capacity.buffer_max) / 2).clamp(capacity.pool_min, capacity.pool_max);
    let first = capacity.buffer_min.min(resting);
    let bar = progress(resting as u64, "warm pods");
    let mut stand_in_told = false;
    let mut first_warm = false;
    let mut events = watcher(pools, watcher::Config::default().fields(&format!("metadata.name={POOL_NAME}")))
        .applied_objects()
        .boxed();
    let waiting = async {
        while let Some(event) = events.next().await {
            let Ok(seen) = event else { continue };
            let Some(status) = seen.status else { continue };
            bar.set_position(status.available.max(0) as u64);
            if !first_warm && status.available >= first {
                first_warm = true;
                took.push(("first ten pods warm", ms(applied)));
            }
            if !stand_in_told && status.available > 0 {
                stand_in_told = true;
                bar.suspend(|| tell_stand_in(pool));
            }
            if status.available >= resting {
                took.push(("pool at rest", ms(applied)));
                return Ok(status.available);
            }
        }
        bail!("the watch on the pool ended")
    };
    let done = tokio::time::timeout(STEP_LIMIT, waiting).await;
    bar.finish_and_clear();
    match done {
        Ok(available) => available,
        Err(_) => bail!("the pool has not {resting} warm pods within {STEP_LIMIT:?}: {}", why_not_warm(&pods).await),
    }
}

/// One line: which image the machine itself stands in for.
fn tell_stand_in(pool: &Pool) {
    let Some(template) = &pool.spec.template else { return };
    let images: Vec<&str> = template.0["spec"]["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|c| c["image"].as_str())
        .filter(|i| !i.contains("opensandbox/"))
        .collect();
    anstream::println!(
        "note: without a registry this machine's own /usr (image `host`) stands in for {}",
        images.join(", ")
    );
}

async fn why_not_warm(pods: &Api<Pod>) -> String {
    let Ok(list) = pods.list(&kube::api::ListParams::default()).await else { return "the pods can't be read".into() };
    list.items
        .iter()
        .flat_map(|p| p.status.iter())
        .flat_map(|s| s.init_container_statuses.iter().flatten().chain(s.container_statuses.iter().flatten()))
        .filter_map(|c| c.state.as_ref()?.waiting.as_ref())
        .find_map(|w| Some(format!("{}: {}", w.reason.as_deref()?, w.message.as_deref().unwrap_or_default())))
        .unwrap_or_else(|| format!("{} pods exist; `kubectl describe pods` tells more", list.items.len()))
}

/// Runs the agent as its Python twin in `examples/agent.py` does, and notes the milestones as the
/// Kubernetes API shows them.
async fn agent(client: &Client, ready: &Ready, buffer: i32, took: &mut Vec<(&'static str, f64)>) -> Result<String> {
    let batches: Api<BatchSandbox> = Api::namespaced(client.clone(), NAMESPACE);
    let begun = Instant::now();
    let seen = tokio::spawn(grant_times(batches, begun));
    let connection = ConnectionConfig::new(&ready.domain).api_key(&ready.api_key);
    let sandbox = Sandbox::builder("nginx:latest")
        .pool(POOL_NAME)
        .entrypoint(["/bin/sh", "-c", "sleep infinity"])
        .env("AGENT_ID", AGENT)
        .timeout(Duration::from_secs(3600))
        .connection(connection)
        .create()
        .await
        .context("cannot create the sandbox")?;
    let created = ms(begun);
    let ran = sandbox.commands().run(TASK).await;
    let output_at = ms(begun);
    let times = tokio::time::timeout(STEP_LIMIT, seen).await.context("the grant was never seen")???;
    let killed = Instant::now();
    sandbox.kill().await.context("cannot kill the sandbox")?;
    let execution = ran.context("cannot run the command")?;
    if execution.exit_code != Some(0) {
        bail!("the agent's command ended with {:?}: {}", execution.exit_code, execution.stderr_text());
    }
    took.extend([
        ("create accepted", times.accepted),
        ("granted", times.granted),
        ("claimed", times.claimed),
        ("create answered", created),
        ("first output", output_at),
        ("killed", ms(killed)),
    ]);
    replaced(client, &times.pod, buffer).await?;
    took.push(("pod gone, buffer full", ms(killed)));
    Ok(execution.stdout_text())
}

/// When the API showed each step of a create, in ms since the request.
struct GrantTimes {
    accepted: f64,
    granted: f64,
    claimed: f64,
    pod: String,
}

async fn grant_times(batches: Api<BatchSandbox>, begun: Instant) -> Result<GrantTimes> {
    let (mut accepted, mut granted) = (None, None);
    let mut events = watcher(batches, watcher::Config::default()).applied_objects().boxed();
    while let Some(event) = events.next().await {
        let Ok(batch) = event else { continue };
        accepted.get_or_insert_with(|| ms(begun));
        let Some(grant) = batch.status.as_ref().and_then(|s| s.grants.first()) else { continue };
        granted.get_or_insert_with(|| ms(begun));
        if let (GrantState::Claimed, Some(accepted), Some(granted)) = (grant.state, accepted, granted) {
            return Ok(GrantTimes { accepted, granted, claimed: ms(begun), pod: grant.pod.clone() });
        }
    }
    bail!("the watch on the sandboxes ended")
}

/// Waits until the used pod is gone and the pool has its buffer.
async fn replaced(client: &Client, pod: &str, buffer: i32) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let pools: Api<Pool> = Api::namespaced(client.clone(), NAMESPACE);
    let gone = async {
        let Some(found) = pods.get_opt(pod).await? else { return Ok(()) };
        let uid = found.uid().unwrap_or_default();
        kube::runtime::wait::await_condition(pods.clone(), pod, kube::runtime::conditions::is_deleted(&uid))
            .await
            .map(|_| ())
            .context("the watch on the pod ended")
    };
    let full = kube::runtime::wait::await_condition(pools, POOL_NAME, move |pool: Option<&Pool>| {
        let Some(pool) = pool else { return false };
        let wanted = pool.spec.capacity_spec.buffer_min.min(buffer);
        pool.status.as_ref().is_some_and(|s| s.allocated == 0 && s.available >= wanted)
    });
    tokio::time::timeout(STEP_LIMIT, async {
        gone.await?;
        full.await.context("the watch on the pool ended")?;
        Ok(())
    })
    .await
    .context("the used pod was not replaced in time")?
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

fn table(took: &[(&str, f64)]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(["milestone", "ms"]);
    for (name, ms) in took {
        table.add_row([(*name).to_owned(), format!("{ms:.1}")]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn progress(length: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {pos}/{len} {msg} {bar:30} {elapsed}") {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar
}
