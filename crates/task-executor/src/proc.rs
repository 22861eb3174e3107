//! What `/proc` tells of a process.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One process for good: a number is reused, a number with its start time is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcId {
    /// Process number.
    pub pid: i32,
    /// Start time in clock ticks since the machine's start.
    pub start: u64,
}

impl ProcId {
    /// The process that has this number now.
    pub fn of(pid: i32) -> Option<Self> {
        Stat::read(pid).map(|s| Self { pid, start: s.start })
    }

    /// Whether it still exists, be it as a zombie.
    pub fn exists(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Whether it still runs.
    pub fn alive(self) -> bool {
        Stat::read(self.pid).is_some_and(|s| s.start == self.start && !matches!(s.state, 'Z' | 'X'))
    }
}

/// The fields of `/proc/PID/stat` that are used here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Name of the executable, at most 15 bytes.
    pub comm: String,
    /// State letter.
    pub state: char,
    /// Parent.
    pub parent: i32,
    /// Process group.
    pub group: i32,
    /// Start time in clock ticks.
    pub start: u64,
}

impl Stat {
    /// Reads it; `None` when the process is gone.
    pub fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name may hold blanks and brackets, so the fields count from the last bracket.
    fn parse(raw: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(raw);
        let (head, tail) = text.rsplit_once(')')?;
        let comm = head.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
        Some(Self {
            comm,
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            start: fields.get(19)?.parse().ok()?,
        })
    }
}

/// Who a process is and what it may do, from `/proc/PID/status`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Real, effective and saved user.
    pub uid: [u32; 3],
    /// Real, effective and saved group.
    pub gid: [u32; 3],
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Inheritable capabilities.
    pub inheritable: u64,
    /// Permitted capabilities.
    pub permitted: u64,
    /// Effective capabilities.
    pub effective: u64,
    /// Bounding set.
    pub bounding: u64,
    /// Ambient set.
    pub ambient: u64,
    /// Whether exec can give no new privilege.
    pub no_new_privs: bool,
    /// Mode of seccomp: 0 none, 2 a filter.
    pub seccomp: u32,
    /// File creation mask.
    pub umask: u32,
    /// Whether it is a thread of the kernel.
    pub kernel: bool,
}

impl Credentials {
    /// Reads them; `None` when the process is gone.
    pub fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':').map(str::trim));
        let ids = |name: &str| -> Option<[u32; 3]> {
            let mut ids = field(name)?.split_ascii_whitespace().map_while(|id| id.parse().ok());
            Some([ids.next()?, ids.next()?, ids.next()?])
        };
        let mask = |name: &str| u64::from_str_radix(field(name)?, 16).ok();
        let number = |name: &str| field(name).and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
        Some(Self {
            uid: ids("Uid")?,
            gid: ids("Gid")?,
            groups: field("Groups")?.split_ascii_whitespace().map_while(|id| id.parse().ok()).collect(),
            inheritable: mask("CapInh")?,
            permitted: mask("CapPrm")?,
            effective: mask("CapEff")?,
            bounding: mask("CapBnd")?,
            ambient: mask("CapAmb").unwrap_or(0),
            no_new_privs: number("NoNewPrivs") == 1,
            seccomp: number("Seccomp"),
            umask: field("Umask").and_then(|m| u32::from_str_radix(m, 8).ok()).unwrap_or(0o022),
            kernel: number("Kthread") == 1,
        })
    }
}

/// A variable as bytes: what containers carry need not be UTF-8.
pub type EnvPair = (Vec<u8>, Vec<u8>);

/// The environment a process was started with.
pub fn environ(pid: i32) -> std::io::Result<Vec<EnvPair>> {
    Ok(parse_environ(&fs::read(format!("/proc/{pid}/environ"))?))
}

fn parse_environ(raw: &[u8]) -> Vec<EnvPair> {
    let pair = |entry: &[u8]| {
        let at = entry.iter().position(|b| *b == b'=')?;
        Some((entry.get(..at)?.to_vec(), entry.get(at + 1..)?.to_vec()))
    };
    raw.split(|b| *b == 0).filter_map(pair).collect()
}

/// This process's own environment.
pub fn own_environ() -> Vec<EnvPair> {
    std::env::vars_os().map(|(k, v)| (k.into_vec(), v.into_vec())).collect()
}

/// Inode of one of a process's namespaces.
pub fn namespace(pid: &str, kind: &str) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(fs::metadata(format!("/proc/{pid}/ns/{kind}"))?.ino())
}

/// Every process number there is.
pub fn pids() -> Vec<i32> {
    let Ok(dir) = fs::read_dir("/proc") else { return Vec::new() };
    dir.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Every living descendant of a process, by the parents that `/proc` tells.
pub fn descendants(root: i32) -> Vec<ProcId> {
    let all: Vec<(ProcId, i32)> = pids()
        .into_iter()
        .filter_map(|pid| Stat::read(pid).map(|s| (s, pid)))
        .filter(|(s, _)| s.state != 'Z')
        .map(|(s, pid)| (ProcId { pid, start: s.start }, s.parent))
        .collect();
    let mut found: Vec<ProcId> = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for (child, of) in &all {
            if *of == parent && !found.contains(child) {
                found.push(*child);
                parents.push(child.pid);
            }
        }
    }
    found
}

/// The machine's start, by its random name. Start times of two boots can't be compared.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// `/proc/PID/NAME`.
pub fn path(pid: i32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_is_read() {
        let raw = b"12 (a) b (c) S 3 4 5 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 777 1 2";
        let stat = Stat::parse(raw).unwrap();
        assert_eq!((stat.comm.as_str(), stat.state, stat.parent, stat.group, stat.start), ("a) b (c", 'S', 3, 4, 777));
        assert_eq!(Stat::parse(b"12 (x) S 1"), None);
    }

    #[test]
    fn own_credentials_are_read() {
        let own = i32::try_from(std::process::id()).unwrap();
        let credentials = Credentials::read(own).unwrap();
        assert_eq!(credentials.uid[0], nix::unistd::getuid().as_raw());
        assert_eq!(credentials.permitted, crate::sys::capget().unwrap().permitted);
        assert!(!credentials.kernel);
        let id = ProcId::of(own).unwrap();
        assert!(id.alive() && !ProcId { start: id.start + 1, ..id }.alive());
    }

    #[test]
    fn an_environment_keeps_bytes_and_later_equal_signs() {
        let pairs = parse_environ(b"A=1=2\0B=\xff\0junk\0");
        assert_eq!(pairs, vec![(b"A".to_vec(), b"1=2".to_vec()), (b"B".to_vec(), b"\xff".to_vec())]);
    }
}
