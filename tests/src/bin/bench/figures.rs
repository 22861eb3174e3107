//! What is printed: one line a figure, and the machine.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets::UTF8_BORDERS_ONLY};
use hdrhistogram::Histogram;

/// Microseconds of one figure's runs.
pub struct Figure {
    name: String,
    histogram: Histogram<u64>,
}

impl Figure {
    /// A figure without runs.
    pub fn new(name: impl Into<String>) -> anyhow::Result<Self> {
        // Up to ten minutes, three digits.
        Ok(Self { name: name.into(), histogram: Histogram::new_with_bounds(1, 600_000_000, 3)? })
    }

    /// Adds a run.
    pub fn add(&mut self, took: Duration) {
        self.histogram.saturating_record(took.as_micros().try_into().unwrap_or(u64::MAX));
    }
}

/// The figures as a table, in ms.
pub fn table(figures: &[Figure]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(["ms", "n", "p50", "p90", "p99", "max"]);
    for figure in figures {
        let h = &figure.histogram;
        let at = |micros: u64| format!("{:.2}", micros as f64 / 1000.0);
        table.add_row([
            figure.name.clone(),
            h.len().to_string(),
            at(h.value_at_quantile(0.5)),
            at(h.value_at_quantile(0.9)),
            at(h.value_at_quantile(0.99)),
            at(h.max()),
        ]);
    }
    for column in 1..6 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// One line about the machine.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": ").map(|(_, m)| m.to_owned()));
    let memory = read("/proc/meminfo");
    let kib: u64 = memory
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:")?.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or_default();
    format!(
        "{} x {}, {} GiB, Linux {}",
        std::thread::available_parallelism().map_or(0, usize::from),
        model.unwrap_or_else(|| "unknown processor".to_owned()),
        kib >> 20,
        read("/proc/sys/kernel/osrelease").trim()
    )
}
