//! `/metrics`: the sandbox's numbers at once, as a stream, and for Prometheus.

use std::convert::Infallible;
use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use api_types::execd::Metrics;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};

use super::command::events;
use super::{App, Shared};
use crate::metrics::{Details, disk};

/// Time between two events of the stream.
const EVERY: Duration = Duration::from_secs(1);
const MIB: f64 = (1 << 20) as f64;

/// The published numbers, and what we add.
#[derive(Serialize)]
pub struct Told {
    #[serde(flatten)]
    published: Metrics,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_peak_mib: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oom_kills: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_throttled_periods: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_throttled_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pids: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pids_limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_total_mib: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_used_mib: Option<f64>,
}

fn told(app: &App) -> Told {
    let Details { memory_peak, oom_kills, throttled, pids, pids_limit } = app.meter.details();
    let disk = disk(Path::new("/"));
    let mib = |bytes: u64| bytes as f64 / MIB;
    Told {
        published: app.meter.measure(Instant::now(), Timestamp::now()),
        mem_peak_mib: memory_peak.map(mib),
        oom_kills,
        cpu_throttled_periods: throttled.map(|(periods, _)| periods),
        cpu_throttled_seconds: throttled.map(|(_, time)| time.as_secs_f64()),
        pids,
        pids_limit,
        disk_total_mib: disk.map(|(total, _)| mib(total)),
        disk_used_mib: disk.map(|(_, used)| mib(used)),
    }
}

/// `GET /metrics`.
pub async fn once(State(app): State<Shared>) -> Json<Told> {
    Json(told(&app))
}

/// `GET /metrics/watch`.
pub async fn watch(State(app): State<Shared>) -> Response {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stream = futures::stream::unfold((app, ticks), |(app, mut ticks)| async move {
        ticks.tick().await;
        let mut text = serde_json::to_vec(&told(&app)).unwrap_or_default();
        text.extend_from_slice(b"\n\n");
        Some((Ok::<_, Infallible>(text), (app, ticks)))
    });
    events(Body::from_stream(stream))
}

/// `GET /metrics/prometheus`.
pub async fn prometheus(State(app): State<Shared>) -> Response {
    let now = told(&app);
    let store = app.engine.store().stats();
    let counts = app.engine.counts();
    let mut text = Text(String::new());
    let bytes = |mib: f64| mib * MIB;
    text.add("cpus", "gauge", "Processors that may be used.", Some(now.published.cpu_count));
    text.add("cpu_used_ratio", "gauge", "Share of them in use.", Some(now.published.cpu_used_pct / 100.0));
    text.add(
        "cpu_throttled_periods_total",
        "counter",
        "Periods in which the processor was withheld.",
        now.cpu_throttled_periods.map(|n| n as f64),
    );
    text.add("cpu_throttled_seconds_total", "counter", "Time for which it was.", now.cpu_throttled_seconds);
    text.add("memory_limit_bytes", "gauge", "Memory that may be used.", Some(bytes(now.published.mem_total_mib)));
    text.add("memory_used_bytes", "gauge", "Memory in use.", Some(bytes(now.published.mem_used_mib)));
    text.add("memory_peak_bytes", "gauge", "Most memory that was ever in use.", now.mem_peak_mib.map(bytes));
    text.add("oom_kills_total", "counter", "Processes killed for want of memory.", now.oom_kills.map(|n| n as f64));
    text.add("pids", "gauge", "Processes and threads.", now.pids.map(|n| n as f64));
    text.add("pids_limit", "gauge", "How many there may be.", now.pids_limit.map(|n| n as f64));
    text.add("disk_bytes", "gauge", "Size of the root file system.", now.disk_total_mib.map(bytes));
    text.add("disk_used_bytes", "gauge", "How much of it is in use.", now.disk_used_mib.map(bytes));
    text.add("executions_running", "gauge", "Commands that run.", Some(app.engine.running_count() as f64));
    text.add("executions_started_total", "counter", "Commands started.", Some(counts.started.load(Relaxed) as f64));
    text.add(
        "executions_failed_total",
        "counter",
        "Commands that did not end with 0.",
        Some(counts.failed.load(Relaxed) as f64),
    );
    text.add("journal_memory_bytes", "gauge", "Memory that kept output takes.", Some(store.memory as f64));
    text.add("journal_disk_bytes", "gauge", "Disk that kept output takes.", Some(store.disk as f64));
    text.add("journal_dropped_bytes_total", "counter", "Output dropped past the bounds.", Some(store.dropped as f64));
    text.add("output_lost_bytes_total", "counter", "Output that a reader was told it missed.", Some(store.lost as f64));
    text.add("slow_readers_total", "counter", "Readers too slow to be waited for.", Some(store.slow_readers as f64));
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text.0).into_response()
}

/// The exposition format, written by hand: a registry would cost more than these few lines.
struct Text(String);

impl Text {
    fn add(&mut self, name: &str, kind: &str, help: &str, value: Option<f64>) {
        let Some(value) = value else { return };
        let name = format!("opensandbox_execd_{name}");
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    }
}
