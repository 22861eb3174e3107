//! The embedded node's pods against those of a kubelet.
//!
//! Runs every pod of `node/cases` on the embedded node and compares its status with the recording of a real one.
//! `OPENSANDBOX_CONFORMANCE_KUBECONFIG=FILE` runs them on that cluster instead and compares, with
//! `OPENSANDBOX_CONFORMANCE_RECORD=1` it writes the recordings down. Arguments, or `OPENSANDBOX_CONFORMANCE_FILTER`,
//! narrow the cases. The cluster needs an image `busybox:latest`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says by a panic what is wrong")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use conformance::api::{Difference, Table};
use conformance::node::{self, Account, Case, Embedded, Ground, Judge};
use futures::StreamExt as _;

/// Cases at a time.
const AT_ONCE: usize = 8;

fn variable(name: &str) -> String {
    std::env::var(format!("OPENSANDBOX_CONFORMANCE_{name}")).unwrap_or_default()
}

fn main() -> anyhow::Result<ExitCode> {
    local_node::shim::main_if_asked();
    let mut wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    wanted.extend(Some(variable("FILTER")).filter(|filter| !filter.is_empty()));
    let kubeconfig = variable("KUBECONFIG");
    if kubeconfig.is_empty() && !nix::unistd::geteuid().is_root() {
        println!("skipped: the embedded node needs root");
        return Ok(ExitCode::SUCCESS);
    }
    let cases = node::cases(&node::folder().join("cases"), &wanted)?;
    let whole = wanted.is_empty();
    tokio::runtime::Runtime::new()?.block_on(async {
        if kubeconfig.is_empty() { embedded(cases, whole).await } else { cluster(&kubeconfig, cases).await }
    })
}

fn recording(case: &str) -> PathBuf {
    node::folder().join("recordings").join(format!("{case}.json"))
}

fn recorded(case: &str) -> anyhow::Result<Option<Account>> {
    match std::fs::read(recording(case)) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn cluster(kubeconfig: &str, cases: Vec<Case>) -> anyhow::Result<ExitCode> {
    let record = !variable("RECORD").is_empty();
    let ground = Ground::cluster(kubeconfig).await?;
    let differences = all(&ground, &cases, &Table::default(), record).await;
    ground.sweep().await?;
    let (differences, failed) = differences?;
    report(cases.len(), failed, &differences, &[]);
    Ok(code(failed == 0 && differences.is_empty()))
}

async fn embedded(mut cases: Vec<Case>, whole: bool) -> anyhow::Result<ExitCode> {
    let table = Table::read(&node::folder().join("differences.yaml"))?;
    let embedded = Embedded::start().await?;
    let mut whole = whole;
    if !embedded.busybox {
        println!("no static busybox: the machine's own files stand in for it");
        whole = false;
        cases.retain(|case| {
            let fits = case.needs.is_empty();
            if !fits {
                println!("skipped {}: needs {}", case.name, case.needs.join(", "));
            }
            fits
        });
    }
    let differences = all(&embedded.ground, &cases, &table, false).await;
    let ended = embedded.end().await;
    let (differences, failed) = differences?;
    let (unexpected, vanished) = table.judge(differences, whole);
    report(cases.len(), failed, &unexpected, &vanished);
    ended?;
    Ok(code(failed == 0 && unexpected.is_empty() && vanished.is_empty()))
}

/// Runs the cases, and tells where they differ from their recordings.
async fn all(ground: &Ground, cases: &[Case], table: &Table, record: bool) -> anyhow::Result<(Vec<Difference>, usize)> {
    let runs = futures::stream::iter(cases).map(|case| async move {
        let begun = std::time::Instant::now();
        let recording = if record { None } else { recorded(&case.name)? };
        anyhow::ensure!(record || recording.is_some(), "{} has no recording", case.name);
        let judge = Judge { recording, table: table.clone() };
        let account = node::run(ground, case, &judge).await.with_context(|| case.name.clone())?;
        let seconds = begun.elapsed().as_secs_f32();
        if record {
            let missed = account
                .values()
                .any(|moment| moment.get("refused").is_some() || moment["status"].get("never").is_some());
            anyhow::ensure!(!missed, "{} did not come to its end: {account:?}", case.name);
            let mut text = serde_json::to_string_pretty(&account)?;
            text.push('\n');
            std::fs::write(self::recording(&case.name), text)?;
            println!("recorded {} ({seconds:.1} s)", case.name);
            return Ok(Vec::new());
        }
        let differences = judge.differences(&case.name, &account);
        println!("ran {} ({seconds:.1} s): {} differences", case.name, differences.len());
        Ok(differences)
    });
    let results: Vec<anyhow::Result<Vec<Difference>>> = runs.buffer_unordered(AT_ONCE).collect().await;
    let mut differences = Vec::new();
    let mut failed = 0;
    for result in results {
        match result {
            Ok(found) => differences.extend(found),
            Err(error) => {
                println!("{error:#}");
                failed += 1;
            }
        }
    }
    differences.sort_by(|a, b| a.at.cmp(&b.at));
    Ok((differences, failed))
}

fn code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn report(cases: usize, failed: usize, unexpected: &[Difference], vanished: &[String]) {
    println!("{cases} pods, {failed} of them could not be compared, {} unexpected differences", unexpected.len());
    for difference in unexpected {
        println!("{}\n    ours   {}\n    theirs {}", difference.at, difference.ours, difference.theirs);
    }
    for text in vanished {
        println!("listed, and no difference any more: {text}");
    }
}
