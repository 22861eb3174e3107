//! System calls that no safe wrapper covers: starting a process in another identity, waiting for
//! it by pidfd, and asking a pipe how much it holds.
#![allow(unsafe_code, reason = "pre_exec, pidfd_open, waitid and FIONREAD have no safe wrapper that keeps all we need")]

use std::ffi::{CString, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::libc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// Where a process's output goes.
pub enum Sink {
    /// Two pipes' write ends.
    Split(OwnedFd, OwnedFd),
    /// One pipe's write end for both streams, so that their order is kept.
    Combined(OwnedFd),
    /// What the daemon itself has: for the container's main process.
    Inherit,
    /// A terminal, for input too; the process leads a session of its own on it.
    Terminal(OwnedFd),
}

/// Everything that is needed to start one process.
pub struct SpawnPlan<'a> {
    /// Program and arguments; the program is looked up in the environment's `PATH`.
    pub argv: &'a [OsString],
    /// The whole environment.
    pub env: &'a [(OsString, OsString)],
    /// Working directory, entered under the new identity.
    pub cwd: Option<&'a PathBuf>,
    /// Identity; the daemon's own if none.
    pub credentials: Option<&'a Credentials>,
    /// Output.
    pub sink: Sink,
    /// Standard input.
    pub input: Input,
}

/// Where a process's input comes from.
pub enum Input {
    /// `/dev/null`.
    Null,
    /// What the daemon itself has.
    Inherit,
    /// This descriptor.
    From(OwnedFd),
}

/// A started process: its id and a descriptor that becomes readable when it ends.
pub struct Spawned {
    /// Process id, also the id of its process group.
    pub pid: i32,
    /// The pidfd.
    pub pidfd: OwnedFd,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// By itself, with this code.
    Code(i32),
    /// By a signal.
    Signal {
        /// Its number.
        number: i32,
        /// Whether a core was dumped.
        core: bool,
    },
}

/// Starts a process in a process group of its own, with every signal as by default.
///
/// # Errors
/// The error of the step that failed: the working directory, the identity or the program.
pub fn spawn(plan: SpawnPlan<'_>) -> io::Result<Spawned> {
    let (program, arguments) = plan.argv.split_first().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(plan.env.iter().map(|(k, v)| (k, v)));
    match plan.input {
        Input::Null => {
            command.stdin(Stdio::null());
        }
        Input::Inherit => {}
        Input::From(fd) => {
            command.stdin(fd);
        }
    }
    let terminal = matches!(plan.sink, Sink::Terminal(_));
    if !terminal {
        command.process_group(0);
    }
    match plan.sink {
        Sink::Terminal(slave) => {
            command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
        }
        Sink::Split(stdout, stderr) => {
            command.stdout(stdout).stderr(stderr);
        }
        Sink::Combined(both) => {
            command.stdout(both.try_clone()?).stderr(both);
        }
        Sink::Inherit => {}
    }
    let cwd = plan.cwd.map(|path| CString::new(path.as_os_str().as_bytes())).transpose()?;
    let credentials = plan.credentials.cloned();
    let files = ORIGINAL_FILES.get().copied();
    // SAFETY: the closure runs between fork and exec and makes only async-signal-safe calls on
    // memory that was allocated before the fork.
    unsafe {
        command.pre_exec(move || {
            // Handlers end with exec, but an ignored signal would stay ignored.
            for signal in 1..32 {
                libc::signal(signal, libc::SIG_DFL);
            }
            if terminal {
                check(libc::setsid())?;
                check(libc::ioctl(0, libc::TIOCSCTTY, 0))?;
            }
            if let Some(limit) = &files {
                check(libc::setrlimit(libc::RLIMIT_NOFILE, limit))?;
            }
            if let Some(to) = &credentials {
                check(libc::setgroups(to.groups.len(), to.groups.as_ptr()))?;
                check(libc::setresgid(to.gid, to.gid, to.gid))?;
                check(libc::setresuid(to.uid, to.uid, to.uid))?;
            }
            if let Some(path) = &cwd {
                check(libc::chdir(path.as_ptr()))?;
            }
            Ok(())
        });
    }
    let child = command.spawn()?;
    let pid = child.id().cast_signed();
    match pidfd_open(pid) {
        Ok(pidfd) => Ok(Spawned { pid, pidfd }),
        Err(error) => {
            undo(pid);
            Err(error)
        }
    }
}

/// Ends and reaps a child that was just started and cannot be watched.
pub fn undo(pid: i32) {
    // SAFETY: the calls take integers and a null pointer where no status is wanted; a child that was not
    // reaped keeps its number.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        libc::waitpid(pid, std::ptr::null_mut(), 0);
    }
}

/// The limit of descriptors that the daemon was started with; what it starts gets the same.
static ORIGINAL_FILES: std::sync::OnceLock<libc::rlimit> = std::sync::OnceLock::new();

/// Lets the daemon have as many descriptors as it may, for itself alone.
pub fn raise_descriptors() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit fills the struct it is given.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == -1 || limit.rlim_cur >= limit.rlim_max {
        return;
    }
    let _ = ORIGINAL_FILES.set(limit);
    // A table of millions of descriptors would cost memory; nothing here needs so many.
    let raised = libc::rlimit { rlim_cur: limit.rlim_max.min(65_536).max(limit.rlim_cur), ..limit };
    // SAFETY: setrlimit reads the struct it is given.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) };
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A descriptor of a process; becomes readable when it ends.
///
/// # Errors
/// No such process, or a kernel before 5.3.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two integers and gives a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd == -1 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets the runtime wait for the end of a process.
///
/// # Errors
/// The reactor does not take the descriptor.
pub fn watch(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd keeps its one descriptor open until it is dropped, which is after the
    // AsyncFd that owns it has been deregistered.
    unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }.map_err(io::Error::from)
}

/// Lets the runtime read and write a descriptor.
///
/// # Errors
/// The reactor does not take the descriptor.
pub fn watch_both(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: as in `watch`.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE.add(Interest::WRITABLE)) }.map_err(io::Error::from)
}

/// Sets the window's size of a terminal by its master. A terminal that has gone needs none.
pub fn set_window(master: impl AsFd, size: &nix::pty::Winsize) {
    // SAFETY: TIOCSWINSZ reads one winsize, and `size` is one.
    unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const *size) };
}

/// Lets `clone3` answer "no such call" for this process and all that it starts.
///
/// # Errors
/// The kernel takes no filter.
pub fn deny_clone3() -> io::Result<()> {
    let step = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let filter = [
        // The number of the call; a call of another architecture has another meaning and is let through.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_clone3 as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the kernel copies the program before the call returns, and `filter` lives until then.
    let set = || unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if set() == 0 {
        return Ok(());
    }
    // Without the right to do so only a process that gains no privilege may.
    // SAFETY: numbers only.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    check(set())
}

/// Sends a signal to exactly the process behind a descriptor.
///
/// # Errors
/// The process has ended, or may not be signalled.
pub fn pidfd_kill(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: no memory is passed; the descriptor is open while it is borrowed.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, std::ptr::null::<libc::siginfo_t>(), 0) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Who the calling thread is to the file system.
pub fn filesystem_user() -> u32 {
    // SAFETY: the call takes a number; one that is nobody's changes nothing and gives the present one.
    unsafe { libc::setfsuid(u32::MAX) }.cast_unsigned()
}

/// The calling thread is itself again when this is dropped.
pub struct Assumed {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

/// Makes the calling thread, and no other, somebody else to the file system.
///
/// # Errors
/// The daemon is not root.
pub fn assume(to: &Credentials) -> io::Result<Assumed> {
    let groups: Vec<u32> = nix::unistd::getgroups()?.into_iter().map(nix::unistd::Gid::as_raw).collect();
    let before = Assumed { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw(), groups };
    thread_groups(&to.groups)?;
    // SAFETY: both take numbers, and act on the calling thread only.
    unsafe {
        libc::setfsgid(to.gid);
        libc::setfsuid(to.uid);
    }
    if filesystem_user() != to.uid {
        // `before` restores what was changed.
        drop(before);
        return Err(io::Error::from(io::ErrorKind::PermissionDenied));
    }
    Ok(before)
}

impl Drop for Assumed {
    fn drop(&mut self) {
        // SAFETY: as in `assume`.
        unsafe {
            libc::setfsuid(self.uid);
            libc::setfsgid(self.gid);
        }
        if thread_groups(&self.groups).is_err() || filesystem_user() != self.uid {
            // Later work on this thread would be done in the wrong name.
            std::process::abort();
        }
    }
}

/// The C library's `setgroups` would change every thread.
fn thread_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: the kernel reads `len` numbers from the slice.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends a signal to a process group.
///
/// # Errors
/// There is no such group, or it may not be signalled.
pub fn kill_group(group: i32, signal: i32) -> io::Result<()> {
    if group <= 1 {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: no memory is passed.
    check(unsafe { libc::kill(-group, signal) })
}

/// Takes the exit status of an own child if it has ended; it is gone afterwards.
///
/// # Errors
/// `ECHILD` when somebody else has taken it.
pub fn reap(pidfd: impl AsFd) -> io::Result<Option<ExitStatus>> {
    let fd = pidfd.as_fd().as_raw_fd().cast_unsigned();
    wait(libc::P_PIDFD, fd, libc::WEXITED | libc::WNOHANG).map(|found| found.map(|(_, status)| status))
}

/// Looks for any ended child without taking it: its process id.
///
/// # Errors
/// `ECHILD` when there is no child at all.
pub fn peek_any() -> io::Result<Option<i32>> {
    wait(libc::P_ALL, 0, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT).map(|found| found.map(|(pid, _)| pid))
}

/// Takes the exit status of an own child by its process id.
///
/// # Errors
/// It is no child of ours.
pub fn reap_pid(pid: i32) -> io::Result<Option<ExitStatus>> {
    wait(libc::P_PID, pid.cast_unsigned(), libc::WEXITED | libc::WNOHANG).map(|found| found.map(|(_, status)| status))
}

fn wait(kind: libc::idtype_t, id: u32, flags: i32) -> io::Result<Option<(i32, ExitStatus)>> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: `info` is a writable siginfo_t; the other arguments are integers.
    let result = unsafe { libc::waitid(kind, id, info.as_mut_ptr(), flags) };
    check(result)?;
    // SAFETY: all zeroes is a valid siginfo_t, and waitid fills it for a child or leaves it.
    let info = unsafe { info.assume_init() };
    // SAFETY: these members are set for SIGCHLD and zero otherwise.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    Ok(match (pid, info.si_code) {
        (0, _) => None,
        (pid, libc::CLD_EXITED) => Some((pid, ExitStatus::Code(status))),
        (pid, code) => Some((pid, ExitStatus::Signal { number: status, core: code == libc::CLD_DUMPED })),
    })
}

/// How a process ended that is no child of ours, by a descriptor that was opened while it lived. Known
/// only once its parent has taken the status, and to kernels from 6.15 on.
pub fn foreign_exit(pidfd: impl AsFd) -> Option<ExitStatus> {
    /// `struct pidfd_info` of the kernel, as far as the exit code.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        mask: u64,
        cgroup: u64,
        ids: [u32; 11],
        exit_code: i32,
    }
    const EXIT: u64 = 1 << 3;
    // _IOWR(0xFF, 11, struct pidfd_info) with the size of this, the structure's first published form.
    const GET_INFO: libc::c_ulong = (3 << 30) | ((size_of::<Info>() as libc::c_ulong) << 16) | (0xFF << 8) | 11;
    let mut info = Info { mask: EXIT, ..Info::default() };
    // SAFETY: the kernel writes at most as many bytes as the number of the call says, the size of `info`.
    let result = unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), GET_INFO, &raw mut info) };
    if result == -1 || info.mask & EXIT == 0 {
        return None;
    }
    let (signal, code) = (info.exit_code & 0x7F, (info.exit_code >> 8) & 0xFF);
    Some(match signal {
        0 => ExitStatus::Code(code),
        number => ExitStatus::Signal { number, core: info.exit_code & 0x80 != 0 },
    })
}

/// How many bytes can be read from a pipe now.
pub fn readable_bytes(fd: impl AsFd) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int, and `count` is one.
    let result = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut count) };
    if result == -1 { 0 } else { usize::try_from(count).unwrap_or(0) }
}

/// Time since the machine was started in the kernel's ticks, as processes' start times are told.
pub fn ticks() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime fills the struct it is given; sysconf takes a number.
    let per_second = unsafe {
        libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time);
        libc::sysconf(libc::_SC_CLK_TCK)
    };
    let per_second = per_second.max(1).cast_unsigned();
    time.tv_sec.cast_unsigned() * per_second + time.tv_nsec.cast_unsigned() * per_second / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(argv: &[&str]) -> io::Result<Spawned> {
        let argv: Vec<OsString> = argv.iter().map(OsString::from).collect();
        let env = [("PATH".into(), "/usr/bin:/bin".into())];
        spawn(SpawnPlan {
            argv: &argv,
            env: &env,
            cwd: None,
            credentials: None,
            sink: Sink::Inherit,
            input: Input::Null,
        })
    }

    fn end(child: &Spawned) -> ExitStatus {
        let mut fds = [nix::poll::PollFd::new(child.pidfd.as_fd(), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, 10_000u16).unwrap();
        reap(&child.pidfd).unwrap().expect("the process has ended")
    }

    #[test]
    fn statuses_are_told_as_they_are() {
        assert_eq!(end(&run(&["sh", "-c", "exit 7"]).unwrap()), ExitStatus::Code(7));
        let killed = end(&run(&["sh", "-c", "kill -9 $$"]).unwrap());
        assert_eq!(killed, ExitStatus::Signal { number: 9, core: false });
    }

    #[test]
    fn a_missing_program_is_enoent() {
        let error = run(&["/no/such/program"]).err().expect("no such program");
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn the_end_of_a_process_that_others_reap() {
        let child = run(&["sh", "-c", "exit 9"]).unwrap();
        let held = pidfd_open(child.pid).unwrap();
        assert_eq!(end(&child), ExitStatus::Code(9));
        match foreign_exit(&held) {
            Some(status) => assert_eq!(status, ExitStatus::Code(9)),
            None => eprintln!("skipped: this kernel does not tell the end of other processes"),
        }
    }

    #[test]
    fn group_one_is_never_signalled() {
        assert!(kill_group(1, libc::SIGTERM).is_err());
        assert!(kill_group(0, libc::SIGTERM).is_err());
    }
}
