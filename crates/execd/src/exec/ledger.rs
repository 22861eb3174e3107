//! What runs, noted on the disk: a daemon that was killed could end nothing, so the one that comes after it
//! ends what is left of its commands. Nobody could read their output, stop them or meet their timeouts.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::libc::SIGKILL;
use parking_lot::Mutex;

use super::supervise::{group_and_start, members};
use crate::sys;

/// Name of the ledger in the directory of the daemon's state.
const FILE: &str = "running";
/// Bytes of a line: two numbers and the line's end.
const LINE: usize = 32;
/// Notes that are read of a predecessor.
const MAX: usize = 1 << 16;

/// The ledger of this process, once it serves.
static LEDGER: Mutex<Option<Ledger>> = Mutex::new(None);

struct Ledger {
    file: File,
    /// Line of each process that is noted.
    lines: HashMap<i32, u64>,
    free: Vec<u64>,
    used: u64,
}

/// Opens the ledger in this directory, after ending what its former owner left running: how many processes
/// that were. None where another daemon owns it.
///
/// # Errors
/// It can't be had.
pub fn open(dir: &Path) -> io::Result<Option<usize>> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC).open(dir.join(FILE))?;
    if file.try_lock().is_err() {
        return Ok(None);
    }
    let world = world()?;
    let mut text = String::new();
    (&mut file).take((MAX * LINE) as u64).read_to_string(&mut text)?;
    // Numbers of processes mean nothing after a restart of the machine or in another container.
    let ended = match text.split_once('\n') {
        Some((head, rest)) if head.trim_end() == world.trim_end() => rest.lines().map(end_left).sum(),
        _ => 0,
    };
    file.set_len(0)?;
    file.write_all_at(world.as_bytes(), 0)?;
    *LEDGER.lock() = Some(Ledger { file, lines: HashMap::new(), free: Vec::new(), used: 0 });
    Ok(Some(ended))
}

/// Notes a process, the leader of its group. What can't be noted runs all the same.
pub fn note(pid: i32) {
    let mut ledger = LEDGER.lock();
    let Some(ledger) = ledger.as_mut() else { return };
    let Some((_, start)) = group_and_start(pid) else { return };
    let line = ledger.free.pop().unwrap_or_else(|| {
        ledger.used += 1;
        ledger.used - 1
    });
    ledger.lines.insert(pid, line);
    let _ = ledger.file.write_all_at(padded(&format!("{pid} {start}")).as_bytes(), place(line));
}

/// Forgets a process that has ended.
pub fn forget(pid: i32) {
    let mut ledger = LEDGER.lock();
    let Some(ledger) = ledger.as_mut() else { return };
    if let Some(line) = ledger.lines.remove(&pid) {
        ledger.free.push(line);
        let _ = ledger.file.write_all_at(padded("").as_bytes(), place(line));
    }
}

/// The first line is two lines long.
fn place(line: u64) -> u64 {
    (line + 2) * LINE as u64
}

fn padded(text: &str) -> String {
    format!("{text:<width$}\n", width = LINE - 1)
}

/// The world in which numbers of processes are what they are: this run of the machine, this namespace.
fn world() -> io::Result<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let namespace = std::fs::metadata("/proc/self/ns/pid")?.ino();
    Ok(format!("{:<width$}\n", format!("{} {namespace}", boot.trim()), width = 2 * LINE - 1))
}

/// Ends what is left of one noted group: how many processes.
fn end_left(line: &str) -> usize {
    let mut fields = line.split_ascii_whitespace().map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(start))) = (fields.next(), fields.next()) else { return 0 };
    let Ok(group) = i32::try_from(pid) else { return 0 };
    let leader = group_and_start(group);
    if leader.is_some_and(|(of, since)| of != group || since != start) {
        return 0;
    }
    let others = members(group);
    // While a group has members nobody else gets its number; all of ours are younger than their leader.
    if others.iter().any(|(_, since)| *since < start) {
        return 0;
    }
    let count = others.len() + usize::from(leader.is_some());
    if count > 0 {
        let _ = sys::kill_group(group, SIGKILL);
    }
    count
}
