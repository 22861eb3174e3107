//! `/proc/PID/root`: the container's files, user, environment and capabilities, but the executor's
//! cgroup and limits. Needs CAP_SYS_PTRACE to look at the target and CAP_SYS_CHROOT.

use api_types::tasks::Injection;
use nix::unistd::Pid;

use super::{Injector, Launch, LaunchError, enter, exec, fork};

/// See the module.
pub struct Chroot;

impl Injector for Chroot {
    fn way(&self) -> Option<Injection> {
        Some(Injection::ExecutorCgroup)
    }

    fn launch(&self, launch: &Launch) -> Result<Pid, LaunchError> {
        let Some(target) = &launch.target else {
            return Err(LaunchError::Unavailable("there is no target".into()));
        };
        fork::launch(launch, || {
            let places = enter::Places::open(target.id)?;
            enter::same_user_namespace(target.id.pid)?;
            enter::no_filter_lost(&target.credentials)?;
            enter::copy_surroundings(target);
            places.enter_root()?;
            enter::assume(&target.credentials)?;
            places.enter_directory(launch.cwd.is_some())?;
            exec::change_directory(launch.cwd.as_deref())
        })
    }
}
