//! The first process of a pod's shared pid namespace: it owns nothing, sees nothing, and reaps orphans.

use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, pivot_root};

use crate::cgroup::Hierarchies;
use crate::sys;

/// Starts it in a new pid namespace, in an empty read-only root made at `dir`.
///
/// It is a fork of the shim, taken before the shim has heard of any container: other containers of the pod may look
/// into its memory and its root, and find nothing there.
pub fn start(dir: &Path, groups: &Hierarchies, group: &str) -> std::io::Result<Pid> {
    std::fs::create_dir_all(dir)?;
    let (ready, signal) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let mut child = || {
        if let Err(error) = groups.join(group).and_then(|()| Ok(confine(dir)?)) {
            let _ = nix::unistd::write(&signal, error.to_string().as_bytes());
            return 1;
        }
        serve()
    };
    let pid = sys::clone_into_namespaces(&mut child)?;
    drop(signal);
    // The child closes its end when it is confined, or says why it is not.
    match super::payload::read_report(&ready) {
        None => Ok(pid),
        Some(reason) => {
            let _ = waitpid(pid, None);
            Err(std::io::Error::other(format!("cannot confine the pod's first process: {reason}")))
        }
    }
}

fn confine(dir: &Path) -> nix::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    let _ = nix::sys::prctl::set_name(c"pause");
    sys::retitle("/pause");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("none"), dir, Some("tmpfs"), flags, Some("size=4k,mode=555"))?;
    nix::unistd::chdir(dir)?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    nix::unistd::chdir("/")?;
    mount(None::<&str>, "/", None::<&str>, flags | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, None::<&str>)?;
    nix::sys::prctl::set_no_new_privs()?;
    for set in [caps::CapSet::Ambient, caps::CapSet::Bounding, caps::CapSet::Effective, caps::CapSet::Permitted] {
        let _ = caps::clear(None, set);
    }
    Ok(())
}

/// Reaps for ever.
fn serve() -> ! {
    sys::reset_signals();
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    let _ = children.thread_block();
    // Every descriptor of the shim goes, last the one whose closing says that this process is ready.
    sys::close_all();
    loop {
        let _ = children.wait();
        while matches!(waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)), Ok(status) if status.pid().is_some()) {}
    }
}
