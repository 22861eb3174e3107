//! Control groups as the node sees them: where they are, what runs in them, how they end.
//!
//! Containers are put into their groups by the container runtime; here is what it does not do: the pod's own
//! group with its pids limit, ending everything in a group, noticing memory exhaustion, and removal.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::sys;

/// The group below which everything of the node lives, in every hierarchy.
pub const ROOT: &str = "osb";
/// Where the shims themselves live.
pub const SHIMS: &str = "osb/shims";

/// The mounted hierarchies of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchies {
    /// Version 1 controllers: mount point and the controllers on it.
    v1: Vec<(PathBuf, Vec<String>)>,
    /// The unified hierarchy.
    v2: Option<PathBuf>,
}

/// A watch on a container's memory group.
pub struct OomWatch {
    event: EventFd,
}

impl Hierarchies {
    /// Reads what is mounted.
    pub fn detect() -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/self/mountinfo")?))
    }

    fn parse(mountinfo: &str) -> Self {
        const NAMES: [&str; 12] = [
            "cpu",
            "cpuacct",
            "cpuset",
            "memory",
            "devices",
            "freezer",
            "blkio",
            "pids",
            "hugetlb",
            "net_cls",
            "net_prio",
            "perf_event",
        ];
        let mut found = Self { v1: Vec::new(), v2: None };
        for line in mountinfo.lines() {
            let Some((mount, filesystem)) = line.split_once(" - ") else { continue };
            let Some(point) = mount.split(' ').nth(4) else { continue };
            let mut filesystem = filesystem.split(' ');
            let (kind, options) = (filesystem.next().unwrap_or(""), filesystem.nth(1).unwrap_or(""));
            match kind {
                "cgroup" => {
                    let controllers: Vec<String> =
                        options.split(',').filter(|o| NAMES.contains(o)).map(str::to_owned).collect();
                    if !controllers.is_empty() && !found.v1.iter().any(|(_, c)| *c == controllers) {
                        found.v1.push((PathBuf::from(point), controllers));
                    }
                }
                "cgroup2" if found.v2.is_none() => found.v2 = Some(PathBuf::from(point)),
                _ => {}
            }
        }
        found
    }

    /// Whether a controller can limit anything here.
    pub fn has(&self, controller: &str) -> bool {
        self.v1_mount(controller).is_some()
            || self.v2.as_ref().is_some_and(|root| {
                fs::read_to_string(root.join("cgroup.controllers"))
                    .is_ok_and(|list| list.split_ascii_whitespace().any(|c| c == controller))
            })
    }

    /// Whether the version 1 controllers are in charge, as on legacy and hybrid machines.
    fn legacy(&self) -> bool {
        !self.v1.is_empty()
    }

    fn v1_mount(&self, controller: &str) -> Option<&Path> {
        self.v1.iter().find(|(_, names)| names.iter().any(|n| n == controller)).map(|(path, _)| path.as_path())
    }

    fn dirs<'a>(&'a self, group: &'a str) -> impl Iterator<Item = PathBuf> + 'a {
        self.v1.iter().map(|(path, _)| path).chain(self.v2.iter()).map(move |root| root.join(group))
    }

    /// The directory whose `cgroup.procs` names every process of the group.
    fn members_dir(&self, group: &str) -> Option<PathBuf> {
        if self.legacy() {
            self.v1_mount("pids").or_else(|| self.v1_mount("memory")).map(|root| root.join(group))
        } else {
            self.v2.as_ref().map(|root| root.join(group))
        }
    }

    /// Makes the pod's group and bounds the number of processes in it.
    pub fn limit_pids(&self, group: &str, limit: u64) -> io::Result<()> {
        let Some(dir) = self.members_dir(group) else { return Ok(()) };
        fs::create_dir_all(&dir)?;
        if !self.legacy()
            && let Some(root) = &self.v2
        {
            // A controller is there for a group only when every ancestor hands it down.
            let mut ancestor = root.clone();
            for part in Path::new(group).components() {
                for controller in ["+pids", "+memory", "+cpu"] {
                    let _ = fs::write(ancestor.join("cgroup.subtree_control"), controller);
                }
                ancestor.push(part);
            }
        }
        fs::write(dir.join("pids.max"), limit.to_string())
    }

    /// Moves the calling process into a group, where the hierarchy counts memory and processes.
    pub fn join(&self, group: &str) -> io::Result<()> {
        let dirs: Vec<PathBuf> = if self.legacy() {
            ["pids", "memory", "cpu"].iter().filter_map(|c| self.v1_mount(c)).map(|root| root.join(group)).collect()
        } else {
            self.members_dir(group).into_iter().collect()
        };
        for dir in dirs {
            fs::create_dir_all(&dir)?;
            fs::write(dir.join("cgroup.procs"), "0")?;
        }
        Ok(())
    }

    /// The processes of a group and of every group below it.
    pub fn members(&self, group: &str) -> Vec<Pid> {
        let Some(dir) = self.members_dir(group) else { return Vec::new() };
        let mut pids = Vec::new();
        for entry in walkdir::WalkDir::new(dir).into_iter().flatten().filter(|e| e.file_type().is_dir()) {
            let list = fs::read_to_string(entry.path().join("cgroup.procs")).unwrap_or_default();
            // 0 is a process that this pid namespace cannot see.
            pids.extend(list.lines().filter_map(|l| l.parse().ok()).filter(|pid| *pid > 0).map(Pid::from_raw));
        }
        pids
    }

    /// Ends every process of a group, and returns once they are gone or `patience` is over.
    pub fn kill(&self, group: &str, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        if let Some(dir) = self.members_dir(group) {
            if !self.legacy() {
                let _ = fs::write(dir.join("cgroup.kill"), "1");
            }
            // No fork succeeds any more, so that the list below can only shrink.
            let _ = fs::write(dir.join("pids.max"), "0");
        }
        loop {
            let members: Vec<OwnedFd> =
                self.members(group).into_iter().filter_map(|pid| sys::pidfd_open(pid).ok()).collect();
            if members.is_empty() {
                return true;
            }
            for member in &members {
                let _ = sys::pidfd_kill(member, Signal::SIGKILL);
            }
            for member in &members {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() || !wait_readable(member, left) {
                    return false;
                }
            }
        }
    }

    /// Removes a group and all below it from every hierarchy. Groups that are still in use stay, which is told.
    pub fn remove(&self, group: &str) -> bool {
        let mut all = true;
        for dir in self.dirs(group) {
            if !dir.exists() {
                continue;
            }
            for entry in walkdir::WalkDir::new(&dir)
                .contents_first(true)
                .into_iter()
                .flatten()
                .filter(|e| e.file_type().is_dir())
            {
                all &= match fs::remove_dir(entry.path()) {
                    Ok(()) => true,
                    Err(error) => error.kind() == io::ErrorKind::NotFound,
                };
            }
        }
        all
    }

    /// Removes a group from every hierarchy where nothing is below it.
    pub fn remove_if_empty(&self, group: &str) {
        for dir in self.dirs(group) {
            let _ = fs::remove_dir(dir);
        }
    }

    /// Watches a container's group for exhaustion of its memory. On the unified hierarchy the kernel ends the whole
    /// group by itself; on version 1 it ends one process and the caller must end the rest.
    pub fn watch_oom(&self, group: &str) -> io::Result<Option<OomWatch>> {
        let Some(dir) = self.v1_mount("memory").map(|root| root.join(group)) else {
            if let Some(root) = &self.v2 {
                let _ = fs::write(root.join(group).join("memory.oom.group"), "1");
            }
            return Ok(None);
        };
        let control = dir.join("memory.oom_control");
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let file = fs::File::open(&control)?;
        fs::write(dir.join("cgroup.event_control"), format!("{} {}", event.as_fd().as_raw_fd(), file.as_raw_fd()))?;
        Ok(Some(OomWatch { event }))
    }

    /// Whether the kernel ended a process of the group for want of memory.
    pub fn oom_killed(&self, group: &str) -> bool {
        let (file, key) = match (self.v1_mount("memory"), &self.v2) {
            (Some(root), _) => (root.join(group).join("memory.oom_control"), "oom_kill "),
            (None, Some(root)) => (root.join(group).join("memory.events"), "oom_kill "),
            (None, None) => return false,
        };
        count(&file, key) > 0
    }
}

impl OomWatch {
    /// Takes the pending notice. It comes before the kernel has ended anything: the counters say nothing yet.
    pub fn fired(&self) -> bool {
        self.event.read().is_ok()
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.event.as_fd()
    }
}

fn count(file: &Path, key: &str) -> u64 {
    fs::read_to_string(file)
        .unwrap_or_default()
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or(0)
}

/// Waits until a descriptor is readable; false when the time is over.
pub fn wait_readable(fd: &impl AsFd, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_machine_is_led_by_its_version_1_controllers() {
        let found = Hierarchies::parse(
            "30 23 0:26 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
             31 23 0:27 / /sys/fs/cgroup/pids rw,relatime shared:9 - cgroup cgroup rw,pids\n\
             32 23 0:28 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n\
             33 23 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
        );
        assert!(found.legacy());
        assert_eq!(found.members_dir("osb/x"), Some(PathBuf::from("/sys/fs/cgroup/pids/osb/x")));
        assert_eq!(found.v1.len(), 2);
        assert_eq!(found.v2, Some(PathBuf::from("/sys/fs/cgroup/unified")));
    }

    #[test]
    fn a_unified_machine_has_one_directory_for_a_group() {
        let found = Hierarchies::parse("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n");
        assert!(!found.legacy());
        assert_eq!(found.members_dir("osb/x"), Some(PathBuf::from("/sys/fs/cgroup/osb/x")));
    }
}
