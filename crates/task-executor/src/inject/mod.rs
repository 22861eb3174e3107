//! The ways in which a task's process comes into the sandbox container, one file a way.
//!
//! They run inside the task's supervisor, which has one thread. A way that lacks a privilege says so
//! and the next is tried; a program that does not exist is an answer, not a reason to try on.

mod cgroup;
mod chroot;
mod enter;
mod exec;
mod fork;
mod host;
mod namespaces;

use std::os::fd::OwnedFd;

use api_types::tasks::Injection;
use nix::unistd::Pid;

use crate::proc::{Credentials, EnvPair, ProcId};

/// What is to be started, in whatever way.
#[derive(Debug)]
pub struct Launch {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<EnvPair>,
    /// Working directory; none is the container's own.
    pub cwd: Option<String>,
    /// The process whose container is meant; none is our own container.
    pub target: Option<Target>,
    /// Where standard output goes.
    pub stdout: OwnedFd,
    /// Where standard error goes.
    pub stderr: OwnedFd,
}

/// The process whose world the task shares.
#[derive(Debug, Clone)]
pub struct Target {
    /// Which process.
    pub id: ProcId,
    /// Who it is and what it may do.
    pub credentials: Credentials,
}

/// Why a launch failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// This way is not open here.
    #[error("{0}")]
    Unavailable(String),
    /// The container was reached, but the program can't be started there.
    #[error("{message}")]
    Start {
        /// 127 where nothing was found, 126 where what was found can't be run.
        code: i32,
        /// One sentence.
        message: String,
    },
}

impl LaunchError {
    /// A step of the way that the system refused.
    fn step(what: &str, error: impl std::fmt::Display) -> Self {
        Self::Unavailable(format!("{what}: {error}"))
    }
}

/// One way into the container.
pub trait Injector {
    /// How the way is told of; none for the executor's own container.
    fn way(&self) -> Option<Injection>;

    /// Starts the process. On success the program runs.
    fn launch(&self, launch: &Launch) -> Result<Pid, LaunchError>;
}

/// The ways to try, best first.
pub fn ways(into_container: bool) -> Vec<Box<dyn Injector>> {
    if into_container {
        vec![Box::new(namespaces::Namespaces), Box::new(chroot::Chroot)]
    } else {
        vec![Box::new(host::Host)]
    }
}
