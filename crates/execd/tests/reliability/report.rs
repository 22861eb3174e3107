//! The whole, ten times what the other tests do, and the page that it leaves. `EXECD_RELIABILITY_PART=10` does a
//! tenth of it, for a machine that is busy; the page says how often each was done.

use std::fmt::Write;
use std::path::Path;

use crate::common::binary;
use crate::held::Outcome;
use crate::{crash, cuts, load};

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = read("/proc/meminfo").split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
    format!("{cpus} processors, {} GiB, Linux {}", memory >> 20, read("/proc/sys/kernel/osrelease").trim())
}

fn page(outcomes: &[Outcome]) -> String {
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
    let size = std::fs::metadata(binary()).map_or(0, |meta| meta.len());
    let kind = if size < 16 << 20 { "release" } else { "development" };
    let mut page = format!(
        "# What execd withstood\n\n\
         Made by `cargo test --workspace --test reliability -- --ignored --nocapture` on {date}: {}; {kind} build.\n\
         The run fails, and writes nothing, if a byte of output is missing or comes twice, if a command has not exactly one end,\n\
         or if afterwards there is a child or zombie, a descriptor or thread more than before, or 5 % more memory.\n\n\
         | What | Times | Seconds | Descriptors | Threads | Resident, KiB |\n|---|---:|---:|---|---|---|\n",
        machine()
    );
    for outcome in outcomes {
        let Outcome { what, times, took, held } = outcome;
        let held = held.map_or("| | |".to_owned(), |(before, after)| {
            format!(
                "{} → {} | {} → {} | {} → {} ({:+.1} %)",
                before.descriptors,
                after.descriptors,
                before.threads,
                after.threads,
                before.memory,
                after.memory,
                outcome.drift().unwrap_or_default()
            )
        });
        writeln!(page, "| {what} | {times} | {:.0} | {held} |", took.as_secs_f64()).unwrap();
    }
    page.push_str(
        "\nThe seed of the cuts is 1. Fork bombs under a limit of processes, a full disk, the last descriptor, and images with nothing in\n\
         them are tests of their own in the same target; they run with every `cargo test`.\n",
    );
    page
}

#[tokio::test]
#[ignore = "takes minutes; writes docs/reliability/execd.md"]
async fn the_whole() {
    let mut outcomes = Vec::new();
    let mut add = |outcome: Outcome| {
        println!("{outcome:?}");
        outcomes.push(outcome);
    };
    let part = std::env::var("EXECD_RELIABILITY_PART").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    add(load::commands(10_000 / part).await);
    add(load::floods(1_000 / part).await);
    add(load::terminals(100 / part).await);
    add(cuts::cuts(1_000 / part, 1).await);
    add(crash::crashes(30 / part).await);
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reliability");
    std::fs::create_dir_all(&docs).unwrap();
    std::fs::write(docs.join("execd.md"), page(&outcomes)).unwrap();
}
