//! The executor's own container: it was started inside the sandbox container, so there is nowhere to go.

use api_types::tasks::Injection;
use nix::unistd::Pid;

use super::{Injector, Launch, LaunchError, enter, exec, fork};

/// See the module.
pub struct Host;

impl Injector for Host {
    fn way(&self) -> Option<Injection> {
        None
    }

    fn launch(&self, launch: &Launch) -> Result<Pid, LaunchError> {
        fork::launch(launch, || {
            enter::die_with_supervisor()?;
            exec::change_directory(launch.cwd.as_deref())
        })
    }
}
