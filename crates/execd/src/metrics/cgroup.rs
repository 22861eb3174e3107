//! Reads the container's cgroup, version 1 or 2, and the machine's `/proc` for what it does not tell.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// One reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// Processors that may be used.
    pub cpus: f64,
    /// Processor time used so far.
    pub cpu: Duration,
    /// Bytes that may be used.
    pub memory_total: u64,
    /// Bytes in use, without what the kernel can take back at once.
    pub memory_used: u64,
}

/// What is told beside the published numbers, as far as the cgroup knows it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Details {
    /// Most bytes that were ever in use.
    pub memory_peak: Option<u64>,
    /// Processes that the kernel killed for want of memory.
    pub oom_kills: Option<u64>,
    /// Periods in which the processor was withheld, and for how long.
    pub throttled: Option<(u64, Duration)>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// How many there may be.
    pub pids_limit: Option<u64>,
}

/// Directories of the container's controllers.
#[derive(Debug, Clone, Default)]
pub struct Source {
    unified: Option<PathBuf>,
    memory: Option<PathBuf>,
    cpu: Option<PathBuf>,
    cpuacct: Option<PathBuf>,
    pids: Option<PathBuf>,
}

impl Source {
    /// Finds them.
    pub fn find() -> Self {
        Self::below(Path::new("/sys/fs/cgroup"), &std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default())
    }

    fn below(root: &Path, own: &str) -> Self {
        // Without a cgroup namespace the path is the machine's, and may or may not be in sight.
        let find = |controller: &str, base: &Path, file: &str| {
            let path = own.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let names = parts.next()?;
                let ours =
                    if controller.is_empty() { names.is_empty() } else { names.split(',').any(|n| n == controller) };
                parts.next().filter(|_| ours)
            });
            let inside = path.map(|p| base.join(p.trim_start_matches('/')));
            inside.into_iter().chain([base.to_owned()]).find(|dir| dir.join(file).exists())
        };
        if root.join("cgroup.controllers").exists() {
            return Self { unified: find("", root, "cpu.stat"), ..Self::default() };
        }
        Self {
            unified: None,
            memory: find("memory", &root.join("memory"), "memory.usage_in_bytes"),
            cpu: find("cpu", &root.join("cpu"), "cpu.cfs_quota_us"),
            cpuacct: find("cpuacct", &root.join("cpuacct"), "cpuacct.usage"),
            pids: find("pids", &root.join("pids"), "pids.current"),
        }
    }

    /// Reads what they say now.
    pub fn read(&self) -> Reading {
        let machine_cpus = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib = |name: &str| number_after(&meminfo, name).unwrap_or(0).saturating_mul(1024);
        let machine_total = kib("MemTotal:");
        let limit = self.memory_limit().filter(|limit| *limit > 0).unwrap_or(u64::MAX);
        let used = self.memory_used().unwrap_or_else(|| machine_total.saturating_sub(kib("MemAvailable:")));
        Reading {
            cpus: self.quota().unwrap_or(machine_cpus).min(machine_cpus),
            cpu: self.cpu_used().unwrap_or_else(machine_cpu),
            memory_total: limit.min(machine_total),
            memory_used: used,
        }
    }

    fn quota(&self) -> Option<f64> {
        let (quota, period) = match (&self.unified, &self.cpu) {
            (Some(dir), _) => {
                let text = std::fs::read_to_string(dir.join("cpu.max")).ok()?;
                let (quota, period) = text.trim().split_once(' ')?;
                (quota.parse::<f64>().ok()?, period.parse::<f64>().ok()?)
            }
            (None, Some(dir)) => (value(&dir.join("cpu.cfs_quota_us"))?, value(&dir.join("cpu.cfs_period_us"))?),
            (None, None) => return None,
        };
        (quota > 0.0 && period > 0.0).then_some(quota / period)
    }

    fn cpu_used(&self) -> Option<Duration> {
        match (&self.unified, &self.cpuacct) {
            (Some(dir), _) => {
                let text = std::fs::read_to_string(dir.join("cpu.stat")).ok()?;
                number_after(&text, "usage_usec").map(Duration::from_micros)
            }
            (None, Some(dir)) => value(&dir.join("cpuacct.usage")).map(Duration::from_nanos),
            (None, None) => None,
        }
    }

    /// Reads what is told beside.
    pub fn details(&self) -> Details {
        let unified = self.unified.as_deref();
        let memory = unified.or(self.memory.as_deref());
        let peak = if unified.is_some() { "memory.peak" } else { "memory.max_usage_in_bytes" };
        let cpu = unified.or(self.cpu.as_deref());
        let stat = cpu.and_then(|dir| std::fs::read_to_string(dir.join("cpu.stat")).ok()).unwrap_or_default();
        let time = if unified.is_some() {
            number_after(&stat, "throttled_usec").map(Duration::from_micros)
        } else {
            number_after(&stat, "throttled_time").map(Duration::from_nanos)
        };
        let pids = unified.or(self.pids.as_deref());
        Details {
            memory_peak: memory.and_then(|dir| value(&dir.join(peak))),
            oom_kills: self.oom_kills(),
            throttled: number_after(&stat, "nr_throttled").zip(time),
            pids: pids.and_then(|dir| value(&dir.join("pids.current"))),
            // "max" is no number.
            pids_limit: pids.and_then(|dir| value(&dir.join("pids.max"))),
        }
    }

    /// How often the kernel killed in this cgroup for want of memory.
    pub fn oom_kills(&self) -> Option<u64> {
        let file = match (&self.unified, &self.memory) {
            (Some(dir), _) => dir.join("memory.events"),
            (None, Some(dir)) => dir.join("memory.oom_control"),
            (None, None) => return None,
        };
        number_after(&std::fs::read_to_string(file).ok()?, "oom_kill")
    }

    fn memory_limit(&self) -> Option<u64> {
        match (&self.unified, &self.memory) {
            (Some(dir), _) => value(&dir.join("memory.max")),
            (None, Some(dir)) => value(&dir.join("memory.limit_in_bytes")),
            (None, None) => None,
        }
    }

    fn memory_used(&self) -> Option<u64> {
        let (dir, current, inactive) = match (&self.unified, &self.memory) {
            (Some(dir), _) => (dir, "memory.current", "inactive_file"),
            (None, Some(dir)) => (dir, "memory.usage_in_bytes", "total_inactive_file"),
            (None, None) => return None,
        };
        let stat = std::fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
        let used: u64 = value(&dir.join(current))?;
        Some(used.saturating_sub(number_after(&stat, inactive).unwrap_or(0)))
    }
}

fn value<T: std::str::FromStr>(path: &Path) -> Option<T> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The number after a name at the beginning of a line.
fn number_after(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name).filter(|r| r.starts_with([' ', '\t'])))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Busy time of all processors since the machine was started.
fn machine_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = text.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = first.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    // user, nice, system, then idle and iowait, irq, softirq, steal; a tick is 10 ms.
    let busy: u64 = ticks.iter().enumerate().filter(|(at, _)| !matches!(at, 3 | 4) && *at < 8).map(|(_, n)| n).sum();
    Duration::from_millis(busy.saturating_mul(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn version_two() {
        let dir = tempfile::tempdir().unwrap();
        write(
            dir.path(),
            &[
                ("cgroup.controllers", ""),
                ("cpu.stat", "usage_usec 1500000\nuser_usec 1\n"),
                ("cpu.max", "50000 100000\n"),
                ("memory.max", "1048576\n"),
                ("memory.current", "600000\n"),
                ("memory.stat", "anon 1\ninactive_file 100000\n"),
                ("memory.peak", "700000\n"),
                ("memory.events", "low 0\noom 4\noom_kill 3\n"),
                ("pids.current", "7\n"),
                ("pids.max", "max\n"),
            ],
        );
        std::fs::write(dir.path().join("cpu.stat"), "usage_usec 1500000\nnr_throttled 2\nthrottled_usec 5000\n")
            .unwrap();
        let details = Source::below(dir.path(), "0::/\n").details();
        let want = Details {
            memory_peak: Some(700_000),
            oom_kills: Some(3),
            throttled: Some((2, Duration::from_millis(5))),
            pids: Some(7),
            pids_limit: None,
        };
        assert_eq!(details, want);
        let reading = Source::below(dir.path(), "0::/\n").read();
        assert_eq!((reading.cpus, reading.cpu), (0.5, Duration::from_millis(1500)));
        assert_eq!((reading.memory_total, reading.memory_used), (1 << 20, 500_000));
    }

    #[test]
    fn version_one_with_the_machines_path_in_sight() {
        let dir = tempfile::tempdir().unwrap();
        write(
            dir.path(),
            &[
                ("memory/memory.usage_in_bytes", "9"),
                ("memory/pod/memory.usage_in_bytes", "600000"),
                ("memory/pod/memory.limit_in_bytes", "1048576"),
                ("memory/pod/memory.stat", "total_inactive_file 100000\n"),
                ("cpu/cpu.cfs_quota_us", "-1"),
                ("cpu/cpu.cfs_period_us", "100000"),
                ("cpuacct/cpuacct.usage", "2000000000"),
            ],
        );
        let source = Source::below(dir.path(), "5:memory:/pod\n4:cpu,cpuacct:/elsewhere\n");
        let reading = source.read();
        assert_eq!((reading.memory_total, reading.memory_used), (1 << 20, 500_000));
        assert_eq!((source.quota(), reading.cpu), (None, Duration::from_secs(2)));
    }
}
