//! What the container uses: of its cgroup where it has one, of the machine otherwise.

mod cgroup;
pub mod ports;

use api_types::execd::Metrics;
use jiff::Timestamp;
use parking_lot::Mutex;
use std::time::{Duration, Instant};

pub use cgroup::{Details, Reading, Source};

const MIB: f64 = (1 << 20) as f64;
/// Between two samples closer than this the processor's use is not computed anew.
const SHORTEST: Duration = Duration::from_millis(100);

struct Last {
    at: Instant,
    cpu: Duration,
    percent: f64,
}

/// Measures without waiting: the processor's use is that since the last call.
pub struct Meter {
    source: Source,
    last: Mutex<Last>,
}

impl Meter {
    /// Finds what to measure, and takes the first sample.
    pub fn new(source: Source) -> Self {
        let cpu = source.read().cpu;
        Self { source, last: Mutex::new(Last { at: Instant::now(), cpu, percent: 0.0 }) }
    }

    /// What is told beside the five numbers.
    pub fn details(&self) -> Details {
        self.source.details()
    }

    /// The five numbers now.
    pub fn measure(&self, now: Instant, clock: Timestamp) -> Metrics {
        let reading = self.source.read();
        let mut last = self.last.lock();
        let passed = now.saturating_duration_since(last.at);
        if passed >= SHORTEST {
            let percent = percent(reading.cpu.saturating_sub(last.cpu), passed, reading.cpus);
            *last = Last { at: now, cpu: reading.cpu, percent };
        }
        let total = reading.memory_total as f64 / MIB;
        Metrics {
            cpu_count: reading.cpus,
            cpu_used_pct: last.percent,
            mem_total_mib: total,
            mem_used_mib: (reading.memory_used as f64 / MIB).min(total),
            timestamp: clock.as_millisecond(),
        }
    }
}

/// Bytes of the file system that holds a path: all, and those in use.
pub fn disk(path: &std::path::Path) -> Option<(u64, u64)> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.fragment_size());
    let total = bytes(stat.blocks());
    Some((total, total.saturating_sub(bytes(stat.blocks_free()))))
}

fn percent(used: Duration, passed: Duration, cpus: f64) -> f64 {
    let share = 100.0 * used.as_secs_f64() / (passed.as_secs_f64() * cpus);
    if share.is_finite() { share.clamp(0.0, 100.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_is_of_what_may_be_used() {
        let second = Duration::from_secs(1);
        assert_eq!(percent(second / 2, second, 2.0), 25.0);
        assert_eq!(percent(second * 9, second, 2.0), 100.0);
        assert_eq!(percent(second, Duration::ZERO, 2.0), 0.0);
    }

    #[test]
    fn the_numbers_make_sense_here() {
        let meter = Meter::new(Source::find());
        let metrics = meter.measure(Instant::now() + Duration::from_secs(1), Timestamp::now());
        assert!(metrics.cpu_count > 0.0 && (0.0..=100.0).contains(&metrics.cpu_used_pct));
        assert!(metrics.mem_total_mib > 0.0 && (0.0..=metrics.mem_total_mib).contains(&metrics.mem_used_mib));
    }
}
