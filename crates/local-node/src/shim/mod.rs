//! The shim: one small single-threaded process for each pod, which owns the pod's namespaces and containers.
//!
//! It is the hosting program executed again, so that nothing else must be installed, and it outlives the node:
//! containers, their logs and their exit statuses are its own. The node speaks to it over a Unix socket.

use std::ffi::{CString, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::cgroup::{Hierarchies, SHIMS};
use crate::sys;
use proto::{SANDBOX_FILE, SOCKET_FILE, Sandbox};

pub mod client;
mod complaints;
mod connection;
mod container;
pub mod journal;
pub mod log;
mod pause;
mod payload;
pub mod proto;
mod seccomp;
mod server;
mod user;

/// First argument of a process that is a shim.
pub const VERB: &str = "__shim";
/// Second argument once the process runs from its read-only copy.
const READY: &str = "--read-only";

/// Runs as a shim when the arguments say so, and then never returns.
///
/// The hosting program calls this first thing in `main`, before it has started any thread: a shim clones, and is
/// single-threaded until then.
pub fn main_if_asked() {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|verb| verb == VERB) {
        std::process::exit(main(&arguments[2..]));
    }
}

/// Runs as the shim of the pod whose directory is the first argument; returns the exit code.
pub fn main(arguments: &[OsString]) -> i32 {
    let Some(dir) = arguments.first() else { return 2 };
    let dir = Path::new(dir);
    if arguments.get(1).is_none_or(|flag| flag != READY) {
        // Where the kernel is too old for this the shim runs from the program's own file.
        let _ = reexec(dir);
    }
    match serve(dir) {
        Ok(()) => 0,
        Err(error) => {
            server::complain(&format!("shim: {error}"));
            let _ = writeln!(io::stdout(), "{error}");
            1
        }
    }
}

fn reexec(dir: &Path) -> nix::Result<()> {
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| nix::errno::Errno::EINVAL);
    let name = std::env::args_os().next().unwrap_or_default();
    let arguments =
        [text(name.as_bytes())?, text(VERB.as_bytes())?, text(dir.as_os_str().as_bytes())?, text(READY.as_bytes())?];
    sys::reexec_read_only(&arguments, &[])
}

fn serve(dir: &Path) -> io::Result<()> {
    complaints::install();
    let sandbox: Sandbox = serde_json::from_slice(&fs::read(dir.join(SANDBOX_FILE))?)?;
    // Its own session: what ends the terminal of the node does not end the pods.
    let _ = nix::unistd::setsid();
    nix::sys::prctl::set_child_subreaper(true)?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    std::env::set_current_dir("/")?;
    let groups = Hierarchies::detect()?;
    groups.join(SHIMS).map_err(|error| naming("cannot join the shims' control group", &error))?;
    groups
        .limit_pids(&sandbox.cgroup, sandbox.pids_limit)
        .map_err(|error| naming("cannot make the pod's control group", &error))?;

    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC)
        .map_err(|errno| naming("cannot make the pod's namespaces", &errno))?;
    // What is unmounted on the machine goes here too, what is mounted here stays here.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)?;
    nix::unistd::sethostname(&sandbox.hostname)?;
    sys::loopback_up()?;
    // Ports below 1024 are the pod's own: it shares its addresses with nobody.
    let _ = fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");

    for (path, value) in &sandbox.sysctls {
        fs::write(Path::new("/proc/sys").join(path), value)
            .map_err(|error| naming(&format!("cannot set the sysctl {path}"), &error))?;
    }

    let pause = if sandbox.share_process_namespace {
        let group = format!("{}/pause", sandbox.cgroup);
        Some(pause::start(&dir.join("pause"), &groups, &group)?)
    } else {
        None
    };
    let listener = listen(dir)?;
    let server = server::Server::new(dir, sandbox, groups, listener, pause)?;
    // An empty line says that the socket is there; anything else was the reason why not.
    writeln!(io::stdout())?;
    io::stdout().flush()?;
    let null = fs::File::options().write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(&null)?;
    server.run()
}

fn listen(dir: &Path) -> io::Result<UnixListener> {
    let path = dir.join(SOCKET_FILE);
    let _ = fs::remove_file(&path);
    // The address of a socket is short and the pod's directory may not be.
    std::env::set_current_dir(dir)?;
    let listener = UnixListener::bind(SOCKET_FILE);
    std::env::set_current_dir("/")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    listener
}

fn naming(what: &str, error: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("{what}: {error}"))
}
