//! System calls that no safe wrapper covers.
#![allow(unsafe_code, reason = "raw system calls: fork, pidfd, capabilities, limits, detached cgroup mounts")]

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{ForkResult, Pid};

/// Number of resource limits Linux has.
const LIMITS: u32 = 16;

/// Takes a descriptor that a system call has just made.
fn owned(raw: libc::c_long) -> Result<OwnedFd, Errno> {
    let raw = RawFd::try_from(Errno::result(raw)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Forks. Must be called in a process of one thread only, so that the child may run any code.
pub fn fork_single_threaded() -> Result<ForkResult, Errno> {
    // SAFETY: the supervisor never starts a thread, so no lock can be held by one that is gone.
    unsafe { nix::unistd::fork() }
}

/// Ends this process at once, without handlers of exit.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes no pointer and does not return.
    unsafe { libc::_exit(code) }
}

/// A descriptor that means one process, however its number is reused.
pub fn pidfd_open(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: takes numbers only.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// Sends a signal to the process a pidfd means.
pub fn pidfd_signal(fd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed, and the descriptor outlives the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), signal, none, 0) }).map(drop)
}

/// Sends a signal to a whole process group.
pub fn signal_group(group: i32, signal: i32) -> Result<(), Errno> {
    if group <= 1 {
        return Err(Errno::EINVAL);
    }
    // SAFETY: takes numbers only.
    Errno::result(unsafe { libc::kill(-group, signal) }).map(drop)
}

/// Every signal back to its default action (an executable inherits what is ignored).
pub fn default_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL is no handler of ours; numbers that can't be changed give an error, which is fine.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Marks every descriptor from 3 on to be closed by exec.
pub fn close_on_exec_from_3() {
    // SAFETY: takes numbers only. An old kernel refuses; then each descriptor's own flag has to do.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Gives this process the resource limits of another, as far as it may; never above its own ceiling.
pub fn copy_limits(pid: Pid) {
    for resource in 0..LIMITS {
        let mut theirs = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        let mut ours = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: both structures live through the calls; a null new limit only reads.
        unsafe {
            if libc::prlimit(pid.as_raw(), resource, std::ptr::null(), &raw mut theirs) != 0
                || libc::prlimit(0, resource, std::ptr::null(), &raw mut ours) != 0
            {
                continue;
            }
            if libc::prlimit(0, resource, &raw const theirs, std::ptr::null_mut()) != 0 {
                let max = theirs.rlim_max.min(ours.rlim_max);
                let within = libc::rlimit { rlim_cur: theirs.rlim_cur.min(max), rlim_max: max };
                libc::prlimit(0, resource, &raw const within, std::ptr::null_mut());
            }
        }
    }
}

/// The three sets of a process's capabilities, as bit masks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapSets {
    /// What may be made effective.
    pub permitted: u64,
    /// What counts now.
    pub effective: u64,
    /// What survives exec, with the file's consent.
    pub inheritable: u64,
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAP_VERSION_3: u32 = 0x2008_0522;

const fn low(set: u64) -> u32 {
    (set & 0xffff_ffff) as u32
}

const fn high(set: u64) -> u32 {
    (set >> 32) as u32
}

/// Reads this process's capabilities.
pub fn capget() -> Result<CapSets, Errno> {
    let mut header = CapHeader { version: CAP_VERSION_3, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: version 3 writes exactly two data structures.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok(CapSets {
        permitted: join(data[0].permitted, data[1].permitted),
        effective: join(data[0].effective, data[1].effective),
        inheritable: join(data[0].inheritable, data[1].inheritable),
    })
}

/// Replaces this process's capabilities.
pub fn capset(sets: CapSets) -> Result<(), Errno> {
    let mut header = CapHeader { version: CAP_VERSION_3, pid: 0 };
    let part = |pick: fn(u64) -> u32| CapData {
        effective: pick(sets.effective),
        permitted: pick(sets.permitted),
        inheritable: pick(sets.inheritable),
    };
    let data = [part(low), part(high)];
    // SAFETY: version 3 reads exactly two data structures.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) }).map(drop)
}

fn prctl(option: i32, a: u64, b: u64) -> Result<i32, Errno> {
    // SAFETY: the options used below take numbers only.
    Errno::result(unsafe { libc::prctl(option, a, b, 0, 0) })
}

/// Whether a capability is in the bounding set; `None` past the kernel's last.
pub fn bounding_has(cap: u32) -> Option<bool> {
    prctl(libc::PR_CAPBSET_READ, u64::from(cap), 0).ok().map(|set| set == 1)
}

/// Drops one capability from the bounding set.
pub fn bounding_drop(cap: u32) -> Result<(), Errno> {
    prctl(libc::PR_CAPBSET_DROP, u64::from(cap), 0).map(drop)
}

/// Empties the ambient set.
pub fn ambient_clear() -> Result<(), Errno> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0).map(drop)
}

/// Raises one capability in the ambient set.
pub fn ambient_raise(cap: u32) -> Result<(), Errno> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, u64::from(cap)).map(drop)
}

/// Option of a filesystem that is to be mounted.
pub enum FsOption<'a> {
    /// A bare word.
    Flag(&'a str),
    /// A key and its value.
    Text(&'a str, &'a str),
}

const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

/// A mount of a filesystem that is nowhere in the tree: only the descriptor leads to it.
pub fn detached_mount(fstype: &str, options: &[FsOption<'_>]) -> Result<OwnedFd, Errno> {
    let text = |s: &str| CString::new(s).map_err(|_| Errno::EINVAL);
    let fstype = text(fstype)?;
    // SAFETY: the text lives through the call.
    let fs = owned(unsafe { libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), 1) })?;
    let config = |command: libc::c_uint, key: Option<&CString>, value: Option<&CString>| {
        let pointer = |text: Option<&CString>| text.map_or(std::ptr::null(), |t| t.as_ptr());
        // SAFETY: each pointer is null where the command wants none, else a text that lives through the call.
        Errno::result(unsafe {
            libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), command, pointer(key), pointer(value), 0)
        })
        .map(drop)
    };
    for option in options {
        match option {
            FsOption::Flag(key) => config(FSCONFIG_SET_FLAG, Some(&text(key)?), None)?,
            FsOption::Text(key, value) => config(FSCONFIG_SET_STRING, Some(&text(key)?), Some(&text(value)?))?,
        }
    }
    config(FSCONFIG_CMD_CREATE, None, None)?;
    // SAFETY: takes numbers only.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, fs.as_raw_fd(), 1, 0) })
}
