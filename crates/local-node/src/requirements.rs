//! What the machine must have to run pods, and what to do when it has not.

use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::cgroup::Hierarchies;

/// What is missing.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    /// Not root.
    #[error("running pods needs root: run the same command with `sudo`")]
    Root,
    /// No control group controller.
    #[error(
        "the control group controller `{0}` is not available: mount it under /sys/fs/cgroup, \
         or boot with `cgroup_enable={0}`"
    )]
    Controller(&'static str),
    /// Control groups cannot be read.
    #[error("control groups cannot be read: {0}")]
    Cgroups(std::io::Error),
    /// Namespaces cannot be made.
    #[error("namespaces cannot be made here ({0}): the machine or the container around it must allow CAP_SYS_ADMIN")]
    Namespaces(nix::Error),
    /// No overlay file system.
    #[error(
        "the overlay file system cannot be mounted below {dir} ({reason}): load the module `overlay`, \
         and choose a state directory on ext4, xfs or btrfs"
    )]
    Overlay {
        /// The state directory.
        dir: String,
        /// What the kernel said.
        reason: String,
    },
    /// The state directory cannot be used.
    #[error("the state directory {dir} cannot be used: {reason}")]
    StateDir {
        /// The directory.
        dir: String,
        /// What the system said.
        reason: std::io::Error,
    },
}

/// Checks everything; returns the control groups that were found.
pub fn check(state_dir: &Path) -> Result<Hierarchies, Missing> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Missing::Root);
    }
    let groups = Hierarchies::detect().map_err(Missing::Cgroups)?;
    for controller in ["memory", "pids", "cpu"] {
        if !groups.has(controller) {
            return Err(Missing::Controller(controller));
        }
    }
    let unusable = |reason| Missing::StateDir { dir: state_dir.display().to_string(), reason };
    std::fs::create_dir_all(state_dir).map_err(unusable)?;
    let trial = tempfile::tempdir_in(state_dir).map_err(unusable)?;
    let dir = trial.path().to_owned();
    // A thread of its own has its own mount namespace: nothing of the trial is ever seen on the machine.
    let result = std::thread::spawn(move || try_overlay(&dir)).join();
    result.unwrap_or(Ok(()))?;
    Ok(groups)
}

fn try_overlay(dir: &Path) -> Result<(), Missing> {
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).map_err(Missing::Namespaces)?;
    let failed = |reason: &dyn std::fmt::Display| Missing::Overlay {
        dir: dir.parent().unwrap_or(dir).display().to_string(),
        reason: reason.to_string(),
    };
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
        .map_err(Missing::Namespaces)?;
    let path = |name: &str| dir.join(name);
    for name in ["lower", "upper", "work", "merged"] {
        std::fs::create_dir(path(name)).map_err(|error| failed(&error))?;
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        path("lower").display(),
        path("upper").display(),
        path("work").display()
    );
    mount(Some("overlay"), &path("merged"), Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .map_err(|errno| failed(&errno))?;
    let _ = umount2(&path("merged"), MntFlags::MNT_DETACH);
    Ok(())
}
