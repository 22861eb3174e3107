//! What an execd holds: descriptors, threads, memory, children; and cases that must leave it as it was.

use std::time::{Duration, Instant};

use crate::common::{DEADLINE, Execd};

/// What a process holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub descriptors: usize,
    pub threads: usize,
    /// Resident, in KiB.
    pub memory: u64,
}

impl Held {
    pub fn of(execd: &Execd) -> Self {
        let entries = |name: &str| std::fs::read_dir(format!("/proc/{}/{name}", execd.pid())).unwrap().count();
        let status = std::fs::read_to_string(format!("/proc/{}/status", execd.pid())).unwrap();
        let memory = status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
        Self { descriptors: entries("fd"), threads: entries("task"), memory: memory.unwrap() }
    }
}

/// Children of an execd: all, and those that nobody has reaped.
pub fn children(execd: &Execd) -> (usize, usize) {
    let (mut all, mut zombies) = (0, 0);
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let (state, parent) = (fields.next(), fields.next());
        if parent == Some(&execd.pid().to_string()) {
            all += 1;
            zombies += usize::from(state == Some("Z"));
        }
    }
    (all, zombies)
}

/// Waits until it has no more descriptors than before, and no child.
pub async fn settled(execd: &Execd, before: usize) {
    let back = async {
        while Held::of(execd).descriptors > before || children(execd).0 > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let done = tokio::time::timeout(DEADLINE, back).await;
    assert!(done.is_ok(), "{:?}, {before} descriptors before, children {:?}", Held::of(execd), children(execd));
}

/// How a case went.
#[derive(Debug)]
pub struct Outcome {
    pub what: &'static str,
    pub times: usize,
    pub took: Duration,
    /// Before and after, where one execd was watched all the time.
    pub held: Option<(Held, Held)>,
}

impl Outcome {
    /// Growth of the memory in percent.
    pub fn drift(&self) -> Option<f64> {
        self.held.map(|(before, after)| (after.memory as f64 / before.memory as f64 - 1.0) * 100.0)
    }
}

/// Descriptors that are opened with their first use and then kept.
const LAZY: usize = 2;

/// Runs a case as often as it takes to warm up, then `times`, and demands that nothing is left of it.
pub async fn watched(
    what: &'static str,
    execd: &Execd,
    warm: usize,
    times: usize,
    case: impl AsyncFn(&Execd, usize),
) -> Outcome {
    let first = Held::of(execd);
    case(execd, warm).await;
    settled(execd, first.descriptors + LAZY).await;
    let (before, begun) = (Held::of(execd), Instant::now());
    case(execd, times).await;
    let took = begun.elapsed();
    settled(execd, before.descriptors).await;
    let outcome = Outcome { what, times, took, held: Some((before, Held::of(execd))) };
    let (before, after) = outcome.held.unwrap();
    assert!(after.threads <= before.threads, "{what}: threads {before:?} {after:?}");
    assert!(outcome.drift().unwrap() < 5.0, "{what}: {before:?} {after:?}");
    outcome
}

/// An execd whose clients keep no connection, so that every descriptor counts. Its store is small: its
/// bounds are met early, and what grows after that is a leak.
pub fn watchable() -> Execd {
    let mut execd = Execd::with(&[("EXECD_JOURNAL_MEMORY", "4194304"), ("EXECD_JOURNAL_DISK", "16777216")]);
    execd.client = reqwest::Client::builder().timeout(DEADLINE).pool_max_idle_per_host(0).build().unwrap();
    execd
}
