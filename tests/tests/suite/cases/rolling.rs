//! Upgrades and rollbacks under agents that work: none of them notices.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::ground::{Cluster, Ground};
use e2e::watch::until;
use futures::StreamExt as _;
use futures::future::{join_all, try_join_all};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use opensandbox::{ConnectionConfig, Event, Sandbox};

use crate::kit::{create_at, output};
use crate::pools;

/// The field that the next version's Pool has more.
const FIELD: &str = "noteOfTheNextVersion";
const POOLS: &str = "pools.sandbox.opensandbox.io";

pub async fn agents_notice_neither_an_upgrade_nor_a_rollback(ground: &Ground) -> Result<()> {
    let cluster = ground.cluster().context("this case needs a cluster")?;
    let Some(tag) = cluster.setting().next_tag.clone() else { bail!("the nodes have no image to upgrade to") };
    pools::warm(ground, &pools::seed_like("rolling", (8, 16), (8, 40))?, "rolling", 8).await?;
    let way = cluster.way_in().await?;
    println!("agents reach the server by {}", way.name());
    let connection = ConnectionConfig::new(way.domain()).api_key(ground.api_key());

    // What was there before stays what it was: same pod, same files.
    let held = try_join_all((0..4).map(|n| hold(&connection, n))).await?;
    let agents = Agents::start(&connection, &held);
    let chart = next_chart(&cluster.setting().chart)?;
    let images = [
        format!("controller.image.tag={tag}"),
        format!("server.image.tag={tag}"),
        "server.podAnnotations.e2e=next".into(),
    ];
    let sets: Vec<&str> = images.iter().flat_map(|image| ["--set", image]).collect();

    let before = revision(cluster)?;
    agents.work(4).await?;
    cluster.helm().upgrade_from(chart.path(), &sets)?.ok()?;
    cluster.ready().await?;
    field(cluster, true).await?;
    agents.work(4).await?;
    cluster.helm().rollback(&before)?.ok()?;
    cluster.ready().await?;
    field(cluster, false).await?;
    agents.work(4).await?;
    let report = agents.stop().await;

    println!("{} creates, {} commands, {} streams", report.creates, report.commands, report.streams);
    ensure!(report.noticed.is_empty(), "agents have noticed: {:#?}", report.noticed);
    for (n, one) in held.iter().enumerate() {
        let now = output(&one.sandbox, "cat /tmp/held; hostname").await.with_context(|| format!("held sandbox {n}"))?;
        ensure!(now == one.said, "held sandbox {n} said {:?} and now says {now:?}", one.said);
    }
    Ok(())
}

/// A sandbox that lives through it all, and what it said at first.
struct Held {
    sandbox: Sandbox,
    said: String,
}

async fn hold(connection: &ConnectionConfig, n: usize) -> Result<Held> {
    let sandbox = create_at(connection.clone(), "rolling", &format!("held-{n}")).await?;
    let said = output(&sandbox, &format!("echo held-{n} > /tmp/held; cat /tmp/held; hostname")).await?;
    Ok(Held { sandbox, said })
}

/// A chart whose Pool has one more field.
fn next_chart(chart: &Path) -> Result<tempfile::TempDir> {
    let next = tempfile::tempdir()?;
    copy(chart, next.path())?;
    let file = next.path().join("crds/pools.yaml");
    let mut crd: serde_json::Value = serde_saphyr::from_str(&std::fs::read_to_string(&file)?)?;
    let spec = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    ensure!(spec.is_object(), "the Pool's CRD has no spec");
    spec[FIELD] = serde_json::json!({"type": "string"});
    // YAML reads JSON.
    std::fs::write(&file, serde_json::to_string_pretty(&crd)?)?;
    Ok(next)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// The release's revision now.
fn revision(cluster: &Cluster) -> Result<String> {
    let history = cluster.helm().says(&["history", &cluster.setting().release, "--max", "1", "-o", "json"])?.ok()?;
    let history: serde_json::Value = serde_json::from_str(&history)?;
    let last = history.as_array().and_then(|h| h.last()).context("the release has no history")?;
    Ok(last["revision"].to_string())
}

/// Waits until the Pool's CRD has the next version's field, or has it no more.
async fn field(cluster: &Cluster, wanted: bool) -> Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(cluster.client());
    let has = |crd: &CustomResourceDefinition| serde_json::to_string(crd).is_ok_and(|text| text.contains(FIELD));
    until(crds, POOLS, "of the wanted version", |crd| has(crd) == wanted).await.map(drop)
}

/// Agents that work until they are stopped.
struct Agents {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<Report>>,
    rounds: Vec<tokio::sync::watch::Receiver<usize>>,
}

/// What agents did, and what they noticed.
#[derive(Debug, Default)]
struct Report {
    creates: usize,
    commands: usize,
    streams: usize,
    noticed: Vec<String>,
}

impl Report {
    fn add(&mut self, what: &str, outcome: Result<()>) {
        if let Err(error) = outcome {
            let time = jiff::Timestamp::now();
            self.noticed.push(format!("{time} {what}: {error:#}"));
        }
    }
}

impl Agents {
    /// Starts some that create and kill, one for each held sandbox that runs commands, and some that read streams.
    fn start(connection: &ConnectionConfig, held: &[Held]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut tasks, mut rounds) = (Vec::new(), Vec::new());
        let mut begin = |work: Work| {
            let (sender, receiver) = tokio::sync::watch::channel(0);
            rounds.push(receiver);
            let stop = Arc::clone(&stop);
            tasks.push(tokio::spawn(async move {
                let mut report = Report::default();
                for round in 1.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    work.round(round, &mut report).await;
                    let _ = sender.send(round);
                }
                report
            }));
        };
        for n in 0..3 {
            begin(Work::Creates(connection.clone(), n));
        }
        for (n, held) in held.iter().enumerate() {
            begin(if n % 2 == 0 { Work::Commands(held.sandbox.clone()) } else { Work::Streams(held.sandbox.clone()) });
        }
        Self { stop, tasks, rounds }
    }

    /// Waits until each has done so many more rounds.
    async fn work(&self, more: usize) -> Result<()> {
        let wait = self.rounds.iter().map(|rounds| async {
            let mut rounds = rounds.clone();
            let until = *rounds.borrow() + more;
            rounds.wait_for(|done| *done >= until).await.map(drop)
        });
        let all = tokio::time::timeout(Duration::from_secs(180), try_join_all(wait)).await;
        all.context("the agents stand still")?.context("an agent has ended")?;
        Ok(())
    }

    async fn stop(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Report::default();
        for report in join_all(self.tasks).await {
            match report {
                Ok(report) => {
                    all.creates += report.creates;
                    all.commands += report.commands;
                    all.streams += report.streams;
                    all.noticed.extend(report.noticed);
                }
                Err(error) => all.noticed.push(error.to_string()),
            }
        }
        all
    }
}

enum Work {
    Creates(ConnectionConfig, usize),
    Commands(Sandbox),
    Streams(Sandbox),
}

impl Work {
    async fn round(&self, round: usize, report: &mut Report) {
        match self {
            Self::Creates(connection, n) => {
                report.creates += 1;
                let agent = format!("agent-{n}-{round}");
                let outcome = async {
                    let sandbox = create_at(connection.clone(), "rolling", &agent).await.context("create")?;
                    let said = output(&sandbox, "echo $AGENT_ID").await.context("command");
                    sandbox.kill().await.context("kill")?;
                    let said = said?;
                    ensure!(said == agent, "{agent} is called {said:?}");
                    Ok(())
                };
                report.add("an agent that creates", outcome.await);
            }
            Self::Commands(sandbox) => {
                report.commands += 1;
                let outcome = async {
                    let said = output(sandbox, &format!("echo {round}")).await?;
                    ensure!(said == round.to_string(), "round {round} said {said:?}");
                    Ok(())
                };
                report.add("an agent with commands", outcome.await);
            }
            Self::Streams(sandbox) => {
                report.streams += 1;
                report.add("an agent with a stream", stream(sandbox).await);
            }
        }
    }
}

/// Five seconds of lines, each of which must come once and in order.
///
/// A stream in flight is served to its end by the server that has it, within that server's grace; this one is well
/// within it.
async fn stream(sandbox: &Sandbox) -> Result<()> {
    let mut events = sandbox.commands().stream("for i in $(seq 50); do echo $i; sleep 0.1; done").await?;
    let mut text = String::new();
    while let Some(event) = events.next().await {
        if let Event::Stdout(line) = event? {
            text.push_str(line.text());
            text.push('\n');
        }
    }
    let wanted: String = (1..=50).map(|n| format!("{n}\n")).collect();
    ensure!(text == wanted, "a stream of 50 lines gave {text:?}");
    Ok(())
}
