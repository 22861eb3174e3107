//! A node that starts pods at once, and the daemons inside them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use api_types::execd::{ClaimRequest, ClaimStatus, EntrypointState, EntrypointStatus};
use api_types::tasks::{ProcessStatus, Running, Task, Terminated};
use async_trait::async_trait;
use controller::daemons::{DaemonAddress, DaemonError, Daemons, TaskList};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt as _};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch;

/// Node every test pod is bound to, so that deletion is graceful as on a real one.
pub const NODE: &str = "node-1";

/// Runs every pod of the cluster: makes it ready with an address of its own, and lets it go when asked.
pub async fn node(client: Client) {
    let next = AtomicU32::new(1);
    let mut addresses: HashMap<String, String> = HashMap::new();
    let mut events = std::pin::pin!(watcher(Api::<Pod>::all(client.clone()), watcher::Config::default()));
    while let Some(event) = events.next().await {
        let Ok(Event::InitApply(pod) | Event::Apply(pod)) = event else { continue };
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
        let name = pod.name_any();
        if pod.metadata.deletion_timestamp.is_some() {
            let _ = api.delete(&name, &DeleteParams::default().grace_period(0)).await;
            continue;
        }
        let phase = pod.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default();
        let never = pod.annotations().contains_key("test/never-ready");
        if phase == "Running" || phase == "Failed" || never {
            continue;
        }
        let n = next.fetch_add(1, Ordering::Relaxed);
        let uid = pod.uid().unwrap_or_default();
        let ip = addresses.entry(uid).or_insert_with(|| format!("10.0.{}.{}", n / 250, n % 250 + 1)).clone();
        let status = json!({"status": {"phase": "Running", "podIP": ip, "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        let _ = api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await;
    }
}

/// The daemons of all pods.
pub struct FakeDaemons {
    pods: Mutex<HashMap<String, Daemon>>,
    /// How the entrypoint of a claim ends, by its program; others run on.
    pub exits: Mutex<BTreeMap<String, (i32, String)>>,
    /// Exit codes of tasks, by their name; others run on.
    pub task_exits: Mutex<BTreeMap<String, i32>>,
    /// Addresses whose daemon says that it belongs to somebody else.
    pub refuse: Mutex<HashSet<String>>,
    /// Claims are not answered while this is set.
    pub hang: watch::Sender<bool>,
    changed: watch::Sender<u64>,
}

/// What the daemons of one pod know.
#[derive(Default, Clone)]
pub struct Daemon {
    /// The claim that was accepted.
    pub claim: Option<ClaimRequest>,
    /// The tasks.
    pub tasks: Vec<Task>,
}

impl FakeDaemons {
    /// None has been spoken to.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            pods: Mutex::default(),
            exits: Mutex::default(),
            task_exits: Mutex::default(),
            refuse: Mutex::default(),
            hang: watch::Sender::new(false),
            changed: watch::Sender::new(0),
        })
    }

    /// What a pod's daemons know, by the pod's UID.
    pub fn of(&self, pod: &str) -> Daemon {
        self.pods.lock().get(pod).cloned().unwrap_or_default()
    }

    /// Sets how a task ends, now or when it starts.
    pub fn end_task(&self, name: &str, code: i32) {
        self.task_exits.lock().insert(name.to_owned(), code);
        let mut pods = self.pods.lock();
        for task in pods.values_mut().flat_map(|p| &mut p.tasks) {
            self.advance(task);
        }
        drop(pods);
        self.changed.send_modify(|n| *n += 1);
    }

    fn advance(&self, task: &mut Task) {
        let code = self.task_exits.lock().get(&task.name).copied();
        task.process_status = Some(match code {
            Some(exit_code) => ProcessStatus {
                terminated: Some(Terminated { exit_code, ..Terminated::default() }),
                ..ProcessStatus::default()
            },
            None => ProcessStatus { running: Some(Running { started_at: None }), ..ProcessStatus::default() },
        });
    }

    fn entrypoint_of(&self, claim: &ClaimRequest) -> EntrypointStatus {
        let state =
            |state| EntrypointStatus { state, exit_code: None, message: None, started_at: None, finished_at: None };
        let Some(program) = claim.entrypoint.first() else { return state(EntrypointState::None) };
        match self.exits.lock().get(program) {
            Some((code, message)) => EntrypointStatus {
                exit_code: Some(*code),
                message: Some(message.clone()),
                ..state(EntrypointState::Exited)
            },
            None => state(EntrypointState::Running),
        }
    }
}

#[async_trait]
impl Daemons for FakeDaemons {
    async fn claim(&self, at: &DaemonAddress, request: &ClaimRequest) -> Result<ClaimStatus, DaemonError> {
        let _ = self.hang.subscribe().wait_for(|hang| !hang).await;
        assert_eq!(at.pod, request.pod_uid, "the claim is signed for the pod it names");
        if self.refuse.lock().remove(&at.ip) {
            return Err(DaemonError::Refused { code: "CLAIMED_BY_ANOTHER".into(), message: "taken".into() });
        }
        let mut pods = self.pods.lock();
        let daemon = pods.entry(at.pod.as_str().to_owned()).or_default();
        match &daemon.claim {
            Some(owner) if owner.sandbox_uid != request.sandbox_uid => {
                return Err(DaemonError::Refused { code: "CLAIMED_BY_ANOTHER".into(), message: "taken".into() });
            }
            _ => daemon.claim = Some(request.clone()),
        }
        Ok(ClaimStatus {
            claimed: true,
            sandbox_uid: Some(request.sandbox_uid.clone()),
            epoch: Some(request.epoch),
            entrypoint: Some(self.entrypoint_of(request)),
        })
    }

    async fn entrypoint(&self, at: &DaemonAddress, wait: Duration) -> Result<EntrypointStatus, DaemonError> {
        let claim = self.of(at.pod.as_str()).claim.ok_or(DaemonError::Unreachable("unclaimed".into()))?;
        let status = self.entrypoint_of(&claim);
        if status.state == EntrypointState::Running {
            let mut changed = self.changed.subscribe();
            let _ = tokio::time::timeout(wait, changed.changed()).await;
        }
        Ok(self.entrypoint_of(&claim))
    }

    async fn set_tasks(&self, at: &DaemonAddress, tasks: &[Task]) -> Result<Vec<Task>, DaemonError> {
        let mut pods = self.pods.lock();
        let daemon = pods.entry(at.pod.as_str().to_owned()).or_default();
        daemon.tasks.retain(|t| tasks.iter().any(|w| w.name == t.name));
        for task in tasks {
            if daemon.tasks.iter().all(|t| t.name != task.name) {
                let mut task = task.clone();
                self.advance(&mut task);
                daemon.tasks.push(task);
            }
        }
        Ok(daemon.tasks.clone())
    }

    async fn tasks(&self, at: &DaemonAddress, seen: Option<&str>, wait: Duration) -> Result<TaskList, DaemonError> {
        let mut changed = self.changed.subscribe();
        let state = || TaskList { tasks: self.of(at.pod.as_str()).tasks, tag: Some(self.changed.borrow().to_string()) };
        if seen.is_some_and(|s| state().tag.as_deref() == Some(s)) {
            let _ = tokio::time::timeout(wait, changed.changed()).await;
        }
        Ok(state())
    }
}
