//! What the ways into another container share: its root, its directory, its user and capabilities.

use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{OFlag, open};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, fstat, stat, umask};
use nix::unistd::{Gid, Pid, Uid, chroot, fchdir, setgroups, setresgid, setresuid};

use super::{LaunchError, Target, cgroup};
use crate::proc::{self, Credentials, ProcId};
use crate::sys;

/// The target's directories, opened while its process was certainly the one that is meant.
pub struct Places {
    root: OwnedFd,
    directory: OwnedFd,
}

impl Places {
    /// Opens them.
    pub fn open(target: ProcId) -> Result<Self, LaunchError> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let place = |name: &str| {
            open(&proc::path(target.pid, name), flags, Mode::empty())
                .map_err(|e| LaunchError::step(&format!("open /proc/{}/{name}", target.pid), e))
        };
        let places = Self { root: place("root")?, directory: place("cwd")? };
        if target.exists() {
            Ok(places)
        } else {
            Err(LaunchError::Unavailable("the sandbox container's process has ended".into()))
        }
    }

    /// Makes the target's root ours, where it is not already.
    pub fn enter_root(&self) -> Result<(), LaunchError> {
        let theirs = fstat(self.root.as_fd()).map_err(|e| LaunchError::step("look at the root", e))?;
        let same = stat("/").is_ok_and(|ours| (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino));
        fchdir(self.root.as_fd()).map_err(|e| LaunchError::step("enter the root", e))?;
        if same {
            return Ok(());
        }
        chroot(".").map_err(|e| LaunchError::step("chroot", e))
    }

    /// Enters the target's working directory. Where the task names its own, a failure does not matter.
    pub fn enter_directory(&self, task_has_its_own: bool) -> Result<(), LaunchError> {
        match fchdir(self.directory.as_fd()) {
            Err(error) if !task_has_its_own => Err(LaunchError::step("enter the container's working directory", error)),
            _ => Ok(()),
        }
    }
}

/// A target in another user namespace has ids and capabilities that mean something else here.
pub fn same_user_namespace(pid: i32) -> Result<(), LaunchError> {
    let theirs =
        proc::namespace(&pid.to_string(), "user").map_err(|e| LaunchError::step("look at the user namespace", e))?;
    match proc::namespace("self", "user") {
        Ok(ours) if ours == theirs => Ok(()),
        _ => Err(LaunchError::Unavailable("the sandbox container has a user namespace of its own".into())),
    }
}

/// A filter of system calls can't be copied. A task must not lose one that its container has.
pub fn no_filter_lost(target: &Credentials) -> Result<(), LaunchError> {
    let own = std::process::id().try_into().ok().and_then(Credentials::read);
    if target.seccomp != 0 && own.is_none_or(|own| own.seccomp == 0) {
        let why = "the sandbox container has a seccomp filter and task-executor has none; give both the same profile";
        return Err(LaunchError::Unavailable(why.into()));
    }
    Ok(())
}

/// Limits, OOM score and file mask of the target, as far as we may have them.
pub fn copy_surroundings(target: &Target) {
    sys::copy_limits(Pid::from_raw(target.id.pid));
    cgroup::copy_oom_score(target.id.pid);
    umask(Mode::from_bits_truncate(target.credentials.umask));
}

/// The task ends when its supervisor is killed: nobody would be left to tell of it.
pub fn die_with_supervisor() -> Result<(), LaunchError> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|e| LaunchError::step("tie the task to its supervisor", e))
}

/// Becomes the target's user with the target's capabilities at most.
pub fn assume(target: &Credentials) -> Result<(), LaunchError> {
    drop_bounding(target.bounding)?;
    prctl::set_keepcaps(true).map_err(|e| LaunchError::step("keep capabilities", e))?;
    let groups: Vec<Gid> = target.groups.iter().map(|g| Gid::from_raw(*g)).collect();
    if nix::unistd::getgroups().ok().as_ref() != Some(&groups) {
        setgroups(&groups).map_err(|e| LaunchError::step("setgroups", e))?;
    }
    let [gid, uid] = [target.gid, target.uid];
    setresgid(Gid::from_raw(gid[0]), Gid::from_raw(gid[1]), Gid::from_raw(gid[2]))
        .map_err(|e| LaunchError::step(&format!("become group {}", gid[1]), e))?;
    setresuid(Uid::from_raw(uid[0]), Uid::from_raw(uid[1]), Uid::from_raw(uid[2]))
        .map_err(|e| LaunchError::step(&format!("become user {}", uid[1]), e))?;
    set_capabilities(target)?;
    if target.no_new_privs {
        prctl::set_no_new_privs().map_err(|e| LaunchError::step("set no_new_privs", e))?;
    }
    // After the change of user, which undoes it.
    die_with_supervisor()
}

/// A program run by root gets back what the bounding set allows, so this is where a privilege ends.
fn drop_bounding(target: u64) -> Result<(), LaunchError> {
    for cap in 0..64 {
        let Some(have) = sys::bounding_has(cap) else { break };
        if have && target >> cap & 1 == 0 {
            sys::bounding_drop(cap)
                .map_err(|e| LaunchError::step(&format!("drop capability {cap}, which needs CAP_SETPCAP"), e))?;
        }
    }
    Ok(())
}

fn set_capabilities(target: &Credentials) -> Result<(), LaunchError> {
    let own = sys::capget().map_err(|e| LaunchError::step("read capabilities", e))?;
    let permitted = target.permitted & own.permitted;
    let sets = sys::CapSets {
        permitted,
        effective: target.effective & permitted,
        inheritable: target.inheritable & (own.inheritable | own.permitted) & target.bounding,
    };
    sys::ambient_clear().map_err(|e| LaunchError::step("clear ambient capabilities", e))?;
    sys::capset(sets).map_err(|e| LaunchError::step("set capabilities", e))?;
    for cap in (0..64).filter(|cap| target.ambient & sets.permitted & sets.inheritable & (1 << cap) != 0) {
        sys::ambient_raise(cap).map_err(|e| LaunchError::step("raise an ambient capability", e))?;
    }
    Ok(())
}
