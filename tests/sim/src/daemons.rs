//! The daemons of all pods, and the way of one controller to them.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use api_types::execd::{ClaimRequest, ClaimStatus, EntrypointState, EntrypointStatus};
use api_types::tasks::{ProcessStatus, Running, Task, Terminated};
use async_trait::async_trait;
use controller::daemons::{DaemonAddress, DaemonError, Daemons, TaskList};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::network::Peer;
use crate::node::Node;
use crate::surroundings::chance;

/// Program of an entrypoint that fails.
pub const FAILING: &str = "/bin/false";

/// How long a caller of a daemon waits for an answer at most.
const CALL: Duration = Duration::from_secs(5);

/// The daemons of every pod.
pub struct Guests {
    node: Arc<Node>,
    seed: u64,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    pods: BTreeMap<String, Guest>,
    hanging: BTreeMap<String, Instant>,
    refusing: BTreeSet<String>,
    accepted: Vec<Accepted>,
}

#[derive(Default, Clone)]
struct Guest {
    claim: Option<ClaimRequest>,
    tasks: Vec<(Task, Instant)>,
}

/// A claim that a daemon has accepted: from then on the pod has run somebody's code.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Accepted {
    /// UID of the pod.
    pub pod: String,
    /// UID of the sandbox.
    pub sandbox: String,
}

impl Guests {
    /// The daemons on a node.
    pub fn new(node: Arc<Node>, seed: u64) -> Arc<Self> {
        Arc::new(Self { node, seed, state: Mutex::default(), changed: watch::Sender::new(0) })
    }

    /// Every claim accepted so far, in order.
    pub fn accepted(&self) -> Vec<Accepted> {
        self.state.lock().accepted.clone()
    }

    /// The daemons of a pod do not answer for a while.
    pub fn hang(&self, pod: String, time: Duration) {
        self.state.lock().hanging.insert(pod, Instant::now() + time);
    }

    /// The daemons of a pod refuse the next claim.
    pub fn refuse(&self, pod: String) {
        self.state.lock().refusing.insert(pod);
    }

    /// The daemons of a pod have restarted and know nothing.
    pub fn restart(&self, pod: &str) {
        self.state.lock().pods.remove(pod);
        self.changed.send_modify(|n| *n += 1);
    }

    /// All daemons answer again.
    pub fn calm(&self) {
        let mut state = self.state.lock();
        state.hanging.clear();
        state.refusing.clear();
    }

    /// The pod that answers at an address, once it does.
    async fn reach(&self, at: &DaemonAddress) -> Result<String, DaemonError> {
        let answers = async {
            loop {
                let until = {
                    let state = self.state.lock();
                    state.hanging.get(at.pod.as_str()).copied().filter(|until| *until > Instant::now())
                };
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => return,
                }
            }
        };
        if self.node.is_lost() || tokio::time::timeout(CALL, answers).await.is_err() {
            return Err(DaemonError::Unreachable("timed out".into()));
        }
        let (uid, _) = self.node.at(&at.ip).ok_or_else(|| DaemonError::Unreachable("nobody listens".into()))?;
        if uid != at.pod.as_str() {
            return Err(DaemonError::Refused { code: "WRONG_POD".into(), message: "signed for another pod".into() });
        }
        Ok(uid)
    }

    fn entrypoint_of(claim: &ClaimRequest) -> EntrypointStatus {
        let state =
            |state| EntrypointStatus { state, exit_code: None, message: None, started_at: None, finished_at: None };
        match claim.entrypoint.first().map(String::as_str) {
            None => state(EntrypointState::None),
            Some(FAILING) => EntrypointStatus {
                exit_code: Some(1),
                message: Some("it said no".into()),
                ..state(EntrypointState::Exited)
            },
            Some(_) => state(EntrypointState::Running),
        }
    }

    /// When a task ends, after its start, and how.
    fn fate(&self, task: &str) -> (Duration, i32) {
        let mut rng = chance(self.seed, &format!("task {task}"));
        (Duration::from_millis(rng.u64(10..20_000)), i32::from(rng.u8(..4) == 0))
    }

    fn shown(&self, task: &Task, started: Instant) -> Task {
        let (lasts, exit_code) = self.fate(&task.name);
        let process_status = if started.elapsed() >= lasts {
            ProcessStatus {
                terminated: Some(Terminated { exit_code, ..Terminated::default() }),
                ..ProcessStatus::default()
            }
        } else {
            ProcessStatus { running: Some(Running { started_at: None }), ..ProcessStatus::default() }
        };
        Task { process_status: Some(process_status), ..task.clone() }
    }

    fn list(&self, pod: &str) -> Vec<Task> {
        let guest = self.state.lock().pods.get(pod).cloned().unwrap_or_default();
        guest.tasks.iter().map(|(task, started)| self.shown(task, *started)).collect()
    }

    /// When something next changes in a pod by itself.
    fn next_end(&self, pod: &str) -> Option<Instant> {
        let guest = self.state.lock().pods.get(pod).cloned().unwrap_or_default();
        guest
            .tasks
            .iter()
            .map(|(task, started)| *started + self.fate(&task.name).0)
            .filter(|end| *end > Instant::now())
            .min()
    }

    fn claim(&self, pod: &str, request: &ClaimRequest) -> Result<ClaimStatus, DaemonError> {
        let taken = || DaemonError::Refused { code: "CLAIMED_BY_ANOTHER".into(), message: "taken".into() };
        let mut state = self.state.lock();
        if state.refusing.remove(pod) {
            return Err(taken());
        }
        let guest = state.pods.entry(pod.to_owned()).or_default();
        match &guest.claim {
            Some(owner) if owner.sandbox_uid != request.sandbox_uid => return Err(taken()),
            Some(_) => {}
            None => {
                guest.claim = Some(request.clone());
                let accepted = Accepted { pod: pod.to_owned(), sandbox: request.sandbox_uid.as_str().to_owned() };
                state.accepted.push(accepted);
            }
        }
        Ok(ClaimStatus {
            claimed: true,
            sandbox_uid: Some(request.sandbox_uid.clone()),
            epoch: Some(request.epoch),
            entrypoint: Some(Self::entrypoint_of(request)),
        })
    }

    fn set_tasks(&self, pod: &str, tasks: &[Task]) {
        let mut state = self.state.lock();
        let guest = state.pods.entry(pod.to_owned()).or_default();
        guest.tasks.retain(|(task, _)| tasks.iter().any(|wanted| wanted.name == task.name));
        for task in tasks {
            if guest.tasks.iter().all(|(known, _)| known.name != task.name) {
                guest.tasks.push((task.clone(), Instant::now()));
            }
        }
        drop(state);
        self.changed.send_modify(|n| *n += 1);
    }

    fn tag(&self, pod: &str) -> String {
        let ended =
            self.list(pod).iter().filter(|t| t.process_status.as_ref().is_some_and(|p| p.terminated.is_some())).count();
        format!("{}-{ended}", *self.changed.borrow())
    }
}

/// One controller's way to the daemons.
pub struct Line {
    guests: Arc<Guests>,
    peer: Arc<Peer>,
}

impl Line {
    /// Calls go through the network of `peer`.
    pub fn new(guests: Arc<Guests>, peer: Arc<Peer>) -> Arc<Self> {
        Arc::new(Self { guests, peer })
    }
}

#[async_trait]
impl Daemons for Line {
    async fn claim(&self, at: &DaemonAddress, request: &ClaimRequest) -> Result<ClaimStatus, DaemonError> {
        self.peer.pass().await;
        let answer = match self.guests.reach(at).await {
            Ok(pod) => self.guests.claim(&pod, request),
            Err(error) => Err(error),
        };
        self.peer.pass().await;
        answer
    }

    async fn entrypoint(&self, at: &DaemonAddress, wait: Duration) -> Result<EntrypointStatus, DaemonError> {
        self.peer.pass().await;
        let pod = self.guests.reach(at).await?;
        let mut changed = self.guests.changed.subscribe();
        let claim = || self.guests.state.lock().pods.get(&pod).and_then(|guest| guest.claim.clone());
        let unclaimed = || DaemonError::Unreachable("unclaimed".into());
        let status = Guests::entrypoint_of(&claim().ok_or_else(unclaimed)?);
        if status.state == EntrypointState::Running {
            let _ = tokio::time::timeout(wait, changed.changed()).await;
        }
        self.peer.pass().await;
        Ok(Guests::entrypoint_of(&claim().ok_or_else(unclaimed)?))
    }

    async fn set_tasks(&self, at: &DaemonAddress, tasks: &[Task]) -> Result<Vec<Task>, DaemonError> {
        self.peer.pass().await;
        let pod = self.guests.reach(at).await?;
        self.guests.set_tasks(&pod, tasks);
        self.peer.pass().await;
        Ok(self.guests.list(&pod))
    }

    async fn tasks(&self, at: &DaemonAddress, seen: Option<&str>, wait: Duration) -> Result<TaskList, DaemonError> {
        self.peer.pass().await;
        let pod = self.guests.reach(at).await?;
        let mut changed = self.guests.changed.subscribe();
        if seen == Some(self.guests.tag(&pod).as_str()) {
            let end = self.guests.next_end(&pod);
            let ends = async {
                match end {
                    Some(end) => tokio::time::sleep_until(end).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = changed.changed() => {}
                () = ends => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.peer.pass().await;
        Ok(TaskList { tasks: self.guests.list(&pod), tag: Some(self.guests.tag(&pod)) })
    }
}
