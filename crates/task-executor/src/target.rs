//! Finding the sandbox container: the process of the pod whose world the tasks are to share.
//!
//! The kernel knows no containers, so processes are grouped by mount namespace and root directory.

use std::os::unix::fs::MetadataExt;

use crate::proc::{self, Credentials, ProcId, Stat};

/// Name that the sandbox container carries in `SANDBOX_MAIN_CONTAINER` by custom.
pub const DEFAULT_MAIN: &str = "main";
/// Variable by which a container says that it is the pod's main one.
const MARKER: &str = api_types::names::env::SANDBOX_MAIN_CONTAINER;

/// One process, as far as the choice needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Which process.
    pub id: ProcId,
    /// Mount namespace.
    pub mounts: u64,
    /// Device and inode of the root directory.
    pub root: (u64, u64),
    /// Name of the executable.
    pub comm: String,
    /// Value of `SANDBOX_MAIN_CONTAINER`, if it has one.
    pub marker: Option<String>,
    /// Whether its environment names an execd to start.
    pub execd_env: bool,
}

/// The world as the executor sees it.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// Processes that could be looked at.
    pub seen: Vec<Seen>,
    /// How many could not.
    pub hidden: usize,
    /// The executor's own mount namespace.
    pub own_mounts: u64,
    /// Whether the whole machine is in sight, kernel threads included.
    pub whole_machine: bool,
}

/// How the executor is to place tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In the sandbox container if there is one beside ours, else in our own.
    Auto,
    /// Only in the sandbox container.
    Sidecar,
    /// Only in our own container.
    Host,
}

/// Where a task is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the executor's own container.
    Own,
    /// In the container of this process.
    Container(ProcId),
}

/// Why no container was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoTarget {
    /// No other container's process is in sight.
    #[error("no process of another container is in sight; set shareProcessNamespace: true in the pod{}", not_seen(*.0))]
    Alone(usize),
    /// Only the pod's pause process is there.
    #[error("only the pod's pause process is in sight; the sandbox container has not started or has ended{}", not_seen(*.0))]
    OnlyPause(usize),
    /// A name was asked for, and no process carries it.
    #[error("no process of another container carries SANDBOX_MAIN_CONTAINER={name}{}", not_seen(*.hidden))]
    NoMarker {
        /// The name.
        name: String,
        /// Processes that could not be looked at.
        hidden: usize,
    },
    /// The pod sees all processes of its machine, so nothing may be guessed.
    #[error(
        "the whole machine's processes are in sight (hostPID); mark the sandbox container with SANDBOX_MAIN_CONTAINER"
    )]
    WholeMachine,
}

fn not_seen(count: usize) -> String {
    match count {
        0 => String::new(),
        n => format!("; {n} processes could not be looked at, which needs the same user and CAP_SYS_PTRACE"),
    }
}

impl World {
    /// Looks around.
    pub fn look() -> Self {
        let mut world = Self { own_mounts: proc::namespace("self", "mnt").unwrap_or(0), ..Self::default() };
        for pid in proc::pids() {
            let Some(stat) = Stat::read(pid) else { continue };
            if pid == 2 && Credentials::read(pid).is_some_and(|c| c.kernel) {
                world.whole_machine = true;
            }
            if stat.state == 'Z' || stat.parent == 2 || (world.whole_machine && pid == 2) {
                continue;
            }
            match Self::look_at(pid, stat) {
                Ok(seen) => world.seen.push(seen),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(_) => world.hidden += 1,
            }
        }
        world
    }

    fn look_at(pid: i32, stat: Stat) -> std::io::Result<Seen> {
        let mounts = proc::namespace(&pid.to_string(), "mnt")?;
        let root = std::fs::metadata(proc::path(pid, "root/."))?;
        let env = proc::environ(pid)?;
        let value = |name: &str| {
            env.iter().find(|(k, _)| k == name.as_bytes()).map(|(_, v)| String::from_utf8_lossy(v).into_owned())
        };
        Ok(Seen {
            id: ProcId { pid, start: stat.start },
            mounts,
            root: (root.dev(), root.ino()),
            comm: stat.comm,
            marker: value(MARKER),
            execd_env: value(api_types::names::env::EXECD).is_some(),
        })
    }

    /// Decides where tasks run. `name` is the main container's name where one was given.
    pub fn place(&self, mode: Mode, name: Option<&str>) -> Result<Place, NoTarget> {
        match mode {
            Mode::Host => Ok(Place::Own),
            Mode::Sidecar => self.choose(name).map(Place::Container),
            // PID 1 in our own mounts means that the PID namespace is ours alone: we are in the sandbox container.
            Mode::Auto if self.seen.iter().any(|p| p.id.pid == 1 && p.mounts == self.own_mounts) => Ok(Place::Own),
            Mode::Auto => self.choose(name).map(Place::Container),
        }
    }

    fn choose(&self, name: Option<&str>) -> Result<ProcId, NoTarget> {
        let others: Vec<&Seen> = self.seen.iter().filter(|p| p.mounts != self.own_mounts).collect();
        let marked = |wanted: Option<&str>| {
            let fits = |p: &&&Seen| p.marker.as_deref().is_some_and(|m| wanted.is_none_or(|w| w == m));
            others.iter().filter(fits).min_by_key(|p| (p.id.start, p.id.pid)).map(|p| p.id)
        };
        if let Some(found) = marked(Some(name.unwrap_or(DEFAULT_MAIN))) {
            return Ok(found);
        }
        if let Some(name) = name {
            return Err(NoTarget::NoMarker { name: name.to_owned(), hidden: self.hidden });
        }
        if let Some(found) = marked(None) {
            return Ok(found);
        }
        if self.whole_machine {
            return Err(NoTarget::WholeMachine);
        }
        if others.is_empty() {
            return Err(NoTarget::Alone(self.hidden));
        }
        self.by_itself(&others).ok_or(NoTarget::OnlyPause(self.hidden))
    }

    /// Without any mark: the container with execd, else the oldest; the pause container never.
    fn by_itself(&self, others: &[&Seen]) -> Option<ProcId> {
        let mut groups: Vec<Vec<&Seen>> = Vec::new();
        for process in others {
            match groups.iter_mut().find(|g| g.iter().any(|p| (p.mounts, p.root) == (process.mounts, process.root))) {
                Some(group) => group.push(process),
                None => groups.push(vec![process]),
            }
        }
        groups.retain(|g| !is_pause(g));
        let key = |group: &Vec<&Seen>| {
            let execd = group.iter().any(|p| p.comm == "execd" || p.execd_env);
            (!execd, group.iter().map(|p| p.id.start).min())
        };
        groups.iter().min_by_key(|g| key(g))?.iter().map(|p| p.id).min_by_key(|id| (id.start, id.pid))
    }
}

/// A container that is nothing but PID 1 of the pod holds the namespaces open, unless it was made to run execd.
fn is_pause(group: &[&Seen]) -> bool {
    group.iter().any(|p| p.id.pid == 1) && group.iter().all(|p| p.id.pid == 1 && !p.execd_env && p.comm != "execd")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(pid: i32, start: u64, mounts: u64, comm: &str) -> Seen {
        let id = ProcId { pid, start };
        Seen { id, mounts, root: (1, mounts), comm: comm.into(), marker: None, execd_env: false }
    }

    fn world(seen: Vec<Seen>) -> World {
        World { seen, hidden: 0, own_mounts: 9, whole_machine: false }
    }

    fn found(world: &World, name: Option<&str>) -> Result<i32, NoTarget> {
        match world.place(Mode::Auto, name)? {
            Place::Container(id) => Ok(id.pid),
            Place::Own => Ok(0),
        }
    }

    #[test]
    fn the_container_that_is_neither_ours_nor_pause_is_taken_by_its_oldest_process() {
        let w = world(vec![
            seen(1, 1, 1, "pause"),
            seen(20, 5, 9, "task-executor"),
            seen(9, 4, 2, "sleep"),
            seen(8, 6, 2, "x"),
        ]);
        assert_eq!(found(&w, None), Ok(9));
    }

    #[test]
    fn execd_then_age_decides_between_several() {
        let mut w =
            world(vec![seen(1, 1, 1, "pause"), seen(5, 5, 2, "log"), seen(6, 6, 3, "sleep"), seen(7, 7, 3, "execd")]);
        assert_eq!(found(&w, None), Ok(6));
        w.seen.pop();
        assert_eq!(found(&w, None), Ok(5));
    }

    #[test]
    fn a_mark_wins_and_a_named_one_must_be_there() {
        let mut w =
            world(vec![seen(1, 1, 1, "pause"), seen(5, 5, 2, "execd"), seen(6, 6, 3, "sleep"), seen(20, 2, 9, "x")]);
        w.seen[2].marker = Some("other".into());
        w.seen[3].marker = Some("main".into());
        assert_eq!(found(&w, None), Ok(6));
        assert_eq!(found(&w, Some("other")), Ok(6));
        assert_eq!(found(&w, Some("main")), Err(NoTarget::NoMarker { name: "main".into(), hidden: 0 }));
    }

    #[test]
    fn nothing_is_guessed_where_nothing_is_certain() {
        assert_eq!(
            found(&world(vec![seen(1, 1, 1, "pause"), seen(20, 5, 9, "te")]), None),
            Err(NoTarget::OnlyPause(0))
        );
        assert_eq!(found(&world(vec![seen(20, 5, 9, "te")]), None), Err(NoTarget::Alone(0)));
        let mut w = world(vec![seen(1, 1, 1, "init"), seen(5, 5, 2, "sh")]);
        w.whole_machine = true;
        assert_eq!(found(&w, None), Err(NoTarget::WholeMachine));
    }

    #[test]
    fn pid_1_of_our_own_mounts_means_that_we_are_in_the_sandbox_container() {
        let w = world(vec![seen(1, 1, 9, "sh"), seen(7, 5, 9, "task-executor")]);
        assert_eq!(w.place(Mode::Auto, None), Ok(Place::Own));
        assert!(w.place(Mode::Sidecar, None).is_err());
        assert_eq!(w.place(Mode::Host, None), Ok(Place::Own));
    }

    #[test]
    fn a_pid_1_that_is_the_sandbox_itself_is_taken() {
        let w = world(vec![seen(1, 1, 2, "bootstrap.sh"), seen(6, 2, 2, "execd"), seen(7, 5, 9, "task-executor")]);
        assert_eq!(found(&w, None), Ok(1));
    }
}
