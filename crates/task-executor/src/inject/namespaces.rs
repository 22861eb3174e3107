//! `setns` into the container's namespaces, and its cgroup. Needs CAP_SYS_ADMIN.
//!
//! The PID namespace is shared already (else the target would not be in sight), so it is not entered.

use std::fs::File;
use std::os::fd::AsFd;

use api_types::tasks::Injection;
use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;

use super::{Injector, Launch, LaunchError, cgroup, enter, exec, fork};
use crate::proc;

/// See the module.
pub struct Namespaces;

/// A namespace that differs from ours and is to be entered.
struct Door {
    name: &'static str,
    kind: CloneFlags,
    file: File,
}

impl Door {
    /// Opens it; `None` where the namespace is ours already.
    fn open(pid: i32, name: &'static str, kind: CloneFlags) -> Result<Option<Self>, LaunchError> {
        let look = |pid: &str| proc::namespace(pid, name);
        let theirs = look(&pid.to_string()).map_err(|e| LaunchError::step(&format!("namespace {name}"), e))?;
        if look("self").is_ok_and(|ours| ours == theirs) {
            return Ok(None);
        }
        let file = File::open(proc::path(pid, &format!("ns/{name}")))
            .map_err(|e| LaunchError::step(&format!("open namespace {name}"), e))?;
        Ok(Some(Self { name, kind, file }))
    }

    fn enter(&self) -> Result<(), LaunchError> {
        setns(self.file.as_fd(), self.kind).map_err(|e| LaunchError::step(&format!("setns {}", self.name), e))
    }
}

impl Injector for Namespaces {
    fn way(&self) -> Option<Injection> {
        Some(Injection::Namespaces)
    }

    fn launch(&self, launch: &Launch) -> Result<Pid, LaunchError> {
        let Some(target) = &launch.target else {
            return Err(LaunchError::Unavailable("there is no target".into()));
        };
        let pid = target.id.pid;
        fork::launch(launch, || {
            enter::same_user_namespace(pid)?;
            enter::no_filter_lost(&target.credentials)?;
            let cgroup = Door::open(pid, "cgroup", CloneFlags::CLONE_NEWCGROUP)?;
            let mut doors = Vec::new();
            for (name, kind) in [
                ("ipc", CloneFlags::CLONE_NEWIPC),
                ("uts", CloneFlags::CLONE_NEWUTS),
                ("net", CloneFlags::CLONE_NEWNET),
                ("mnt", CloneFlags::CLONE_NEWNS),
            ] {
                doors.extend(Door::open(pid, name, kind)?);
            }
            let places = enter::Places::open(target.id)?;
            enter::copy_surroundings(target);
            if let Some(door) = cgroup {
                door.enter()?;
            }
            cgroup::join(pid)?;
            for door in doors {
                door.enter()?;
            }
            places.enter_root()?;
            enter::assume(&target.credentials)?;
            places.enter_directory(launch.cwd.is_some())?;
            exec::change_directory(launch.cwd.as_deref())
        })
    }
}
