//! System calls that no safe wrapper covers.
#![allow(unsafe_code)] // Clone with namespaces, descriptors that arrive over sockets, signal dispositions: no safe API offers them.

use std::ffi::CString;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::unistd::Pid;

/// Most descriptors that one message may carry.
pub const MAX_FDS: usize = 4;

/// Asks for SIGIO whenever an entry of a directory is removed or renamed, while the directory is open.
///
/// It takes no inotify instance: a user has 128 of those, and they belong to the programs in the pods.
pub fn notify_of_removals(directory: &impl AsFd) -> nix::Result<()> {
    // linux/fcntl.h; the libc crate does not have them.
    const F_NOTIFY: nix::libc::c_int = 1026;
    const DN_DELETE: nix::libc::c_uint = 0x8;
    const DN_RENAME: nix::libc::c_uint = 0x10;
    const DN_MULTISHOT: nix::libc::c_uint = 0x8000_0000;
    // SAFETY: the call takes two numbers and touches no memory of ours.
    let result =
        unsafe { nix::libc::fcntl(directory.as_fd().as_raw_fd(), F_NOTIFY, DN_DELETE | DN_RENAME | DN_MULTISHOT) };
    Errno::result(result).map(drop)
}

/// Receives bytes and the descriptors that came with them; every descriptor is close-on-exec.
pub fn recv_with_fds(socket: &impl AsFd, buffer: &mut [u8]) -> nix::Result<(usize, Vec<OwnedFd>)> {
    let mut control = nix::cmsg_space!([RawFd; MAX_FDS]);
    let mut pieces = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(
        socket.as_fd().as_raw_fd(),
        &mut pieces,
        Some(&mut control),
        MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT,
    )?;
    let mut fds = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = part {
            // SAFETY: the kernel has just installed these descriptors for us and nobody else knows their numbers.
            fds.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok((message.bytes, fds))
}

/// Sends bytes and descriptors in one message; returns how many bytes were taken.
pub fn send_with_fds(socket: &impl AsFd, bytes: &[u8], fds: &[RawFd]) -> nix::Result<usize> {
    let rights = [ControlMessage::ScmRights(fds)];
    let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    sendmsg::<()>(socket.as_fd().as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None)
}

/// Clones a child into new pid and mount namespaces and runs `child` there; the child exits with what it returns.
///
/// Only for a single-threaded caller: the child shares nothing but copied memory.
pub fn clone_into_namespaces(child: &mut dyn FnMut() -> isize) -> nix::Result<Pid> {
    let mut stack = vec![0u8; 256 * 1024];
    // SAFETY: without CLONE_VM the child runs on its own copy of the stack and of everything that the closure
    // borrows; the caller is single-threaded, so that no lock is held by a thread that the child lacks.
    unsafe {
        nix::sched::clone(
            Box::new(child),
            &mut stack,
            CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS,
            Some(Signal::SIGCHLD as i32),
        )
    }
}

/// Gives a process that is about to run foreign code the signal state that it expects: nothing blocked, nothing ignored.
pub fn reset_signals() {
    for signal in Signal::iterator() {
        if !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP) {
            // SAFETY: installing the default disposition runs no code of ours.
            let _ = unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) };
        }
    }
    let _ = nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Overwrites this process' command line, so that `ps` in a container shows `title` and no path of the machine.
pub fn retitle(title: &str) {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return };
    let Some((_, fields)) = stat.rsplit_once(')') else { return };
    // proc(5) numbers fields from 1; after the name the next is 3: arg_start is 48 and arg_end 49.
    let mut fields = fields.split_ascii_whitespace().skip(45).map(str::parse::<usize>);
    let (Some(Ok(start)), Some(Ok(end))) = (fields.next(), fields.next()) else { return };
    if start == 0 || end <= start {
        return;
    }
    let length = end - start;
    let title = title.as_bytes();
    let copied = title.len().min(length - 1);
    // SAFETY: the kernel says that our own argument strings lie at start..end, memory that stays mapped and writable
    // for the process' life; the caller is single-threaded and reads its arguments no more.
    unsafe {
        std::ptr::write_bytes(start as *mut u8, 0, length);
        std::ptr::copy_nonoverlapping(title.as_ptr(), start as *mut u8, copied);
    }
}

/// Sets the interface `lo` of the current network namespace up.
pub fn loopback_up() -> nix::Result<()> {
    let socket = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Inet,
        nix::sys::socket::SockType::Datagram,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: `ifreq` is plain data, for which all zeroes is a valid value.
    let mut request: nix::libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as nix::libc::c_char;
    request.ifr_name[1] = b'o' as nix::libc::c_char;
    request.ifr_ifru.ifru_flags = (nix::libc::IFF_UP | nix::libc::IFF_RUNNING) as nix::libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one `ifreq`, which lives until the call returns.
    let result = unsafe { nix::libc::ioctl(socket.as_raw_fd(), nix::libc::SIOCSIFFLAGS, &raw const request) };
    Errno::result(result).map(drop)
}

/// Sets a terminal's size through any of its descriptors.
pub fn set_terminal_size(terminal: &impl AsFd, columns: u16, rows: u16) -> nix::Result<()> {
    let size = nix::libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one `winsize`, which lives until the call returns.
    let result = unsafe { nix::libc::ioctl(terminal.as_fd().as_raw_fd(), nix::libc::TIOCSWINSZ, &raw const size) };
    Errno::result(result).map(drop)
}

/// A descriptor for a process that stays that process, whatever happens to its number.
pub fn pidfd_open(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers.
    let fd = unsafe { nix::libc::syscall(nix::libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = Errno::result(fd)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Sends a signal to the process of a descriptor.
pub fn pidfd_kill(process: &impl AsFd, signal: Signal) -> nix::Result<()> {
    // SAFETY: pidfd_send_signal reads nothing when its third argument is null.
    let result = unsafe {
        nix::libc::syscall(
            nix::libc::SYS_pidfd_send_signal,
            process.as_fd().as_raw_fd(),
            signal as i32,
            std::ptr::null::<nix::libc::siginfo_t>(),
            0,
        )
    };
    Errno::result(result).map(drop)
}

/// Replaces this process by its own program from a detached read-only mount, so that nothing that sees
/// `/proc/PID/exe` of it or of its forks can write to the program on disk. Returns only when it could not.
pub fn reexec_read_only(arguments: &[CString], environment: &[CString]) -> nix::Result<()> {
    const OPEN_TREE_CLONE: u32 = 1;
    let path = c"/proc/self/exe";
    // SAFETY: open_tree reads one NUL-terminated string.
    let tree = unsafe {
        nix::libc::syscall(
            nix::libc::SYS_open_tree,
            nix::libc::AT_FDCWD,
            path.as_ptr(),
            OPEN_TREE_CLONE | nix::libc::O_CLOEXEC as u32,
        )
    };
    let tree = Errno::result(tree)?;
    // SAFETY: the kernel has just made this descriptor for us.
    let tree = unsafe { OwnedFd::from_raw_fd(tree as RawFd) };
    // struct mount_attr { attr_set, attr_clr, propagation, userns_fd }; MOUNT_ATTR_RDONLY is 1.
    let attributes: [u64; 4] = [1, 0, 0, 0];
    // SAFETY: mount_setattr reads a string and a structure of the size given, both alive until it returns.
    let result = unsafe {
        nix::libc::syscall(
            nix::libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            nix::libc::AT_EMPTY_PATH,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    Errno::result(result)?;
    nix::unistd::execveat(&tree, c"", arguments, environment, nix::fcntl::AtFlags::AT_EMPTY_PATH).map(drop)
}

/// Closes every descriptor of this process.
pub fn close_all() {
    // SAFETY: only for a process that will touch no descriptor any more; nothing that owns one is dropped later.
    let _ = unsafe { nix::libc::syscall(nix::libc::SYS_close_range, 0u32, u32::MAX, 0u32) };
}

/// A descriptor whose readiness the runtime tells.
pub fn watched(fd: OwnedFd) -> std::io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` stays the same open descriptor for as long as it is owned.
    unsafe { tokio::io::unix::AsyncFd::register(fd) }.map_err(|error| error.into_parts().1)
}
