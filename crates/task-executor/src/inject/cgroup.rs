//! Joining the target's cgroups, v1 and v2, by mounts of our own that nobody else sees.
//!
//! The cgroup filesystems in a container are read-only and show only its own part, so each hierarchy
//! is mounted detached, from within the target's cgroup namespace.

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::LaunchError;
use crate::proc;
use crate::sys::{FsOption, detached_mount};

/// One line of `/proc/PID/cgroup`.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    /// Controllers, or `name=...`; empty for v2.
    controllers: &'a str,
    /// Path within the hierarchy.
    path: &'a str,
}

fn parse(text: &str) -> Vec<Line<'_>> {
    let line = |l: &'_ str| -> Option<(usize, usize)> {
        let first = l.find(':')?;
        Some((first, l.get(first + 1..)?.find(':')? + first + 1))
    };
    text.lines()
        .filter_map(|l| {
            let (first, second) = line(l)?;
            Some(Line { controllers: l.get(first + 1..second)?, path: l.get(second + 1..)? })
        })
        .collect()
}

/// Moves this process into every cgroup of the target that is not its own already.
pub fn join(pid: i32) -> Result<(), LaunchError> {
    let read = |who: &str| {
        fs::read_to_string(format!("/proc/{who}/cgroup")).map_err(|e| LaunchError::step("read the cgroups", e))
    };
    let (ours, theirs) = (read("self")?, read(&pid.to_string())?);
    let ours = parse(&ours);
    for line in parse(&theirs) {
        if ours.contains(&line) {
            continue;
        }
        if line.path.starts_with("/..") {
            return Err(LaunchError::Unavailable(format!("cgroup {} lies outside what can be seen", line.path)));
        }
        move_into(&line)
            .map_err(|e| LaunchError::step(&format!("join cgroup {}:{}", line.controllers, line.path), e))?;
    }
    Ok(())
}

fn mount(controllers: &str) -> Result<OwnedFd, Errno> {
    if controllers.is_empty() {
        return detached_mount("cgroup2", &[]);
    }
    let options: Vec<FsOption<'_>> = controllers
        .split(',')
        .map(|word| word.split_once('=').map_or(FsOption::Flag(word), |(key, value)| FsOption::Text(key, value)))
        .collect();
    detached_mount("cgroup", &options)
}

fn move_into(line: &Line<'_>) -> Result<(), std::io::Error> {
    let mount = mount(line.controllers)?;
    let path = format!("./{}/cgroup.procs", line.path.trim_matches('/'));
    let procs = openat(mount.as_fd(), path.as_str(), OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    fs::File::from(procs).write_all(b"0")
}

/// Copies the willingness to be killed when memory is short, as far as it may be.
pub fn copy_oom_score(pid: i32) {
    if let Ok(score) = fs::read(proc::path(pid, "oom_score_adj")) {
        let _ = fs::write("/proc/self/oom_score_adj", score);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read() {
        let lines = parse("9:name=systemd:/a:b\n4:cpu,cpuacct:/x\n0::/y\nnonsense\n");
        let want = [("name=systemd", "/a:b"), ("cpu,cpuacct", "/x"), ("", "/y")];
        assert_eq!(lines, want.map(|(controllers, path)| Line { controllers, path }));
    }
}
