//! The tasks of this pod: what is wanted, what is, and one driver per task that makes the second the first.

mod check;
mod drive;
mod handed;
mod local;
mod recover;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api_types::ErrorCode;
use api_types::tasks::{ProcessStatus, Task, Waiting};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::claim::Claims;
use crate::error::ApiError;
use crate::execd::Execd;
use crate::store::{self, Record, Role, Runner, Store};
use crate::supervise;
use crate::target::Mode;

/// Tasks that are kept, ended ones included.
const KEPT_MAX: usize = 256;
/// Longest time a call waits for its tasks to start.
const START_DEADLINE: Duration = Duration::from_secs(25);
/// Bytes of a failed entrypoint's last output that its status carries.
const TAIL: u64 = 1024;

/// What the flags say of tasks.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many may be active at once.
    pub max_active: usize,
    /// Where they are placed.
    pub mode: Mode,
    /// Name of the main container, where one was given.
    pub main_container: Option<String>,
    /// The daemon to hand tasks to.
    pub execd: Option<Execd>,
    /// Seconds between the polite and the final signal.
    pub grace: u64,
    /// Bytes after which an output file is rotated.
    pub output_limit: u64,
}

/// The signed words of the platform that asked for a task.
#[derive(Debug, Clone)]
pub struct Authority {
    /// The body, as it came.
    pub body: String,
    /// The signature header, where the pod carries a key.
    pub signature: Option<String>,
}

/// How far a task has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waits for a place.
    Waiting,
    /// Starts or runs.
    Active,
    /// Has ended.
    Ended,
}

/// One task.
struct Entry {
    record: Record,
    status: ProcessStatus,
    phase: Phase,
    stop: watch::Sender<bool>,
    authority: Option<Arc<Authority>>,
    order: u64,
}

impl Entry {
    fn deleting(&self) -> bool {
        self.record.task.deletion_timestamp.is_some()
    }

    fn told(&self) -> Task {
        Task { process_status: Some(self.status.clone()), ..self.record.task.clone() }
    }
}

#[derive(Default)]
struct Inner {
    tasks: BTreeMap<String, Entry>,
    order: u64,
}

impl Inner {
    /// Tasks that hold a place or are about to.
    fn wanted_active(&self) -> usize {
        let counts = |e: &&Entry| e.record.role == Role::Task && !e.deleting() && e.phase != Phase::Ended;
        self.tasks.values().filter(counts).count()
    }

    /// Places that are taken: by what runs, and by what is being stopped until it is gone.
    fn occupied(&self) -> usize {
        let counts = |e: &&Entry| {
            e.record.role == Role::Task
                && match e.phase {
                    Phase::Waiting => false,
                    Phase::Active => true,
                    Phase::Ended => e.deleting(),
                }
        };
        self.tasks.values().filter(counts).count()
    }
}

/// Told when a start has come to something, or could not be made.
type Started = oneshot::Sender<Result<(), ApiError>>;

/// See the module.
pub struct Manager {
    settings: Settings,
    store: Store,
    claims: Claims,
    inner: Mutex<Inner>,
    changes: watch::Sender<u64>,
}

fn waiting(reason: &str, message: &str) -> ProcessStatus {
    let waiting = Waiting { reason: Some(reason.into()), message: Some(message.into()) };
    ProcessStatus { waiting: Some(waiting), ..ProcessStatus::default() }
}

impl Manager {
    /// A manager of what lies in the store; call [`Manager::recover`] next.
    pub fn new(settings: Settings, store: Store, claims: Claims) -> Arc<Self> {
        // Revisions of two runs must differ, so that a waiting reader of the first sees news in the second.
        let first = u64::try_from(supervise::now().as_millisecond()).unwrap_or(1) << 16;
        let (changes, _) = watch::channel(first);
        Arc::new(Self { settings, store, claims, inner: Mutex::default(), changes })
    }

    /// Whose the pod is.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// All tasks of the task API, those not being stopped first, then by age; and the revision of that.
    pub fn list(&self) -> (u64, Vec<Task>) {
        let inner = self.inner.lock();
        let revision = *self.changes.borrow();
        let mut tasks: Vec<&Entry> = inner.tasks.values().filter(|e| e.record.role == Role::Task).collect();
        tasks.sort_by_key(|e| (e.deleting(), e.order));
        (revision, tasks.into_iter().map(Entry::told).collect())
    }

    /// One task. The entrypoint of a claim answers to its name unless a task has that name.
    pub fn get(&self, name: &str) -> Option<Task> {
        let inner = self.inner.lock();
        let roles = [Role::Task, Role::Entrypoint];
        roles.iter().find_map(|role| inner.tasks.get(&store::key(*role, name))).map(Entry::told)
    }

    /// Waits until the revision is another than `seen`, or nothing can change by itself, or the time is over.
    pub async fn wait_change(&self, seen: Option<u64>, wait: Duration) {
        let mut changes = self.changes.subscribe();
        let base = *changes.borrow_and_update();
        if seen.is_some_and(|seen| seen != base) {
            return;
        }
        let at_rest = |e: &Entry| e.record.role != Role::Task || (e.phase == Phase::Ended && !e.deleting());
        if seen.is_none() && self.inner.lock().tasks.values().all(at_rest) {
            return;
        }
        let _ = tokio::time::timeout(wait, changes.wait_for(|now| *now != base)).await;
    }

    /// Makes `wanted` the whole set: unknown ones are created, known ones left alone, all others stopped.
    pub async fn set(self: &Arc<Self>, wanted: Vec<Task>, authority: Authority) -> Result<Vec<Task>, ApiError> {
        let authority = Arc::new(authority);
        let mut errors = Vec::new();
        let mut starts = Vec::new();
        let wanted: Vec<Task> = wanted.into_iter().filter(|t| !t.name.is_empty()).collect();
        let names: Vec<&str> = wanted.iter().map(|t| t.name.as_str()).collect();
        self.stop_where(|record| record.role == Role::Task && !names.contains(&record.task.name.as_str()));
        for task in wanted {
            if self.inner.lock().tasks.contains_key(&store::key(Role::Task, &task.name)) {
                continue;
            }
            match self.create(task, Role::Task, Some(authority.clone())) {
                Ok(started) => starts.push(started),
                Err(error) => errors.push(error),
            }
        }
        for started in starts {
            errors.extend(wait_start(started).await.err());
        }
        join(errors).map(|()| self.list().1)
    }

    /// Adds one task.
    pub async fn add(self: &Arc<Self>, task: Task, authority: Authority) -> Result<Task, ApiError> {
        let name = task.name.clone();
        wait_start(self.create(task, Role::Task, Some(Arc::new(authority)))?).await?;
        self.get(&name)
            .ok_or_else(|| ApiError::new(ErrorCode::TaskNotFound, format!("task {name:?} was removed at once")))
    }

    /// Has a task stopped and removed; an unknown one is gone already.
    pub fn delete(&self, name: &str) {
        let key = store::key(Role::Task, name);
        self.stop_where(|record| record.key() == key);
    }

    /// Starts the entrypoint of a claim, unless it was started before.
    pub async fn start_entrypoint(self: &Arc<Self>, argv: &[String]) -> Result<Option<ProcessStatus>, ApiError> {
        if argv.is_empty() {
            return Ok(self.entrypoint());
        }
        if self.entrypoint().is_none() {
            let process = api_types::tasks::ProcessTask { command: argv.to_vec(), ..Default::default() };
            let task = Task { name: "entrypoint".into(), process: Some(process), ..Task::default() };
            wait_start(self.create(task, Role::Entrypoint, None)?).await?;
        }
        Ok(self.entrypoint())
    }

    /// State of the entrypoint, if there is one.
    pub fn entrypoint(&self) -> Option<ProcessStatus> {
        self.inner.lock().tasks.get(&store::key(Role::Entrypoint, "entrypoint")).map(|e| e.status.clone())
    }

    /// Last output of the entrypoint.
    pub fn entrypoint_tail(&self) -> Option<String> {
        supervise::tail(&self.store.task_dir(&store::key(Role::Entrypoint, "entrypoint")), TAIL)
    }

    /// Waits until the entrypoint has ended, or the time is over.
    pub async fn wait_entrypoint(&self, wait: Duration) -> Option<ProcessStatus> {
        let mut changes = self.changes.subscribe();
        let ended = || self.entrypoint().is_none_or(|s| s.terminated.is_some());
        let _ = tokio::time::timeout(wait, changes.wait_for(|_| ended())).await;
        self.entrypoint()
    }

    /// Stops and removes everything; whether that was done within the time.
    pub async fn clear(&self, wait: Duration) -> bool {
        self.stop_where(|_| true);
        let mut changes = self.changes.subscribe();
        let gone = changes.wait_for(|_| self.inner.lock().tasks.is_empty());
        tokio::time::timeout(wait, gone).await.is_ok()
    }

    fn stop_where(&self, wanted: impl Fn(&Record) -> bool) {
        let mut changed = false;
        for entry in self.inner.lock().tasks.values_mut() {
            if entry.deleting() || !wanted(&entry.record) {
                continue;
            }
            entry.record.task.deletion_timestamp = Some(supervise::now());
            if entry.record.runner != Runner::Undecided
                && let Err(error) = entry.record.write(&self.store.task_dir(&entry.record.key()))
            {
                tracing::warn!(task = entry.record.task.name, %error, "the wish to stop is not on disk");
            }
            entry.stop.send_replace(true);
            changed = true;
        }
        if changed {
            self.bump();
        }
    }

    fn create(
        self: &Arc<Self>,
        task: Task,
        role: Role,
        authority: Option<Arc<Authority>>,
    ) -> Result<oneshot::Receiver<Result<(), ApiError>>, ApiError> {
        let task = Task { deletion_timestamp: None, process_status: None, ..task };
        check::task(&task)?;
        let mut inner = self.inner.lock();
        let key = store::key(role, &task.name);
        if inner.tasks.contains_key(&key) {
            return Err(ApiError::new(ErrorCode::TaskExists, format!("task {:?} exists", task.name)));
        }
        if role == Role::Task && inner.wanted_active() >= self.settings.max_active {
            let message = format!("{} task(s) are active, and no more may be", self.settings.max_active);
            return Err(ApiError::new(ErrorCode::TooManyTasks, message));
        }
        if inner.tasks.len() >= KEPT_MAX {
            let message = format!("{KEPT_MAX} tasks are kept; delete some that have ended");
            return Err(ApiError::new(ErrorCode::TooManyTasks, message));
        }
        let record = Record { task, role, created_at: supervise::now(), runner: Runner::Undecided, ended: None };
        let status = waiting("Pending", "waits for its turn");
        self.insert(&mut inner, key.clone(), record, status, Phase::Waiting, authority);
        drop(inner);
        self.bump();
        let (tell, started) = oneshot::channel();
        tokio::spawn(drive::new_task(self.clone(), key, tell));
        Ok(started)
    }

    fn insert(
        &self,
        inner: &mut Inner,
        key: String,
        record: Record,
        status: ProcessStatus,
        phase: Phase,
        authority: Option<Arc<Authority>>,
    ) {
        inner.order += 1;
        let (order, stop) = (inner.order, watch::channel(record.task.deletion_timestamp.is_some()).0);
        inner.tasks.insert(key, Entry { record, status, phase, stop, authority, order });
    }

    fn bump(&self) {
        self.changes.send_modify(|revision| *revision += 1);
    }

    /// Changes an entry and tells the waiting.
    fn update(&self, key: &str, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.inner.lock().tasks.get_mut(key) {
            change(entry);
        }
        self.bump();
    }

    fn set_status(&self, key: &str, status: ProcessStatus) {
        let same = self.inner.lock().tasks.get(key).is_some_and(|e| e.status == status);
        if same {
            return;
        }
        self.update(key, |entry| {
            entry.phase = if status.terminated.is_some() { Phase::Ended } else { Phase::Active };
            entry.status = status;
        });
    }

    fn remove(&self, key: &str) {
        self.store.remove(&self.store.task_dir(key));
        self.inner.lock().tasks.remove(key);
        self.bump();
    }
}

/// Until the task is not wanted any more.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the entry is gone, and with it all wishes.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn wait_start(started: oneshot::Receiver<Result<(), ApiError>>) -> Result<(), ApiError> {
    match tokio::time::timeout(START_DEADLINE, started).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(ApiError::internal("the task's driver ended before the start")),
        Err(_) => Err(ApiError::new(ErrorCode::RequestTimeout, "the task's start takes longer than a call may")),
    }
}

/// The first error's code, with every message.
fn join(errors: Vec<ApiError>) -> Result<(), ApiError> {
    let Some(code) = errors.first().map(|e| e.code) else { return Ok(()) };
    let messages: Vec<String> = errors.into_iter().map(|e| e.message).collect();
    Err(ApiError::new(code, messages.join("; ")))
}

/// Opens the store and the claim as the flags say.
pub fn open(args: &crate::config::Args, mode: Mode, pod: Option<String>) -> anyhow::Result<Arc<Manager>> {
    use anyhow::Context as _;
    let store = args.store()?;
    let pod = pod.filter(|p| !p.is_empty()).map(Into::into);
    let claims = Claims::open(store.dir(), pod).context("the claim on disk can't be read; the pod can't be used")?;
    let settings = Settings {
        max_active: usize::try_from(args.max_active)?,
        mode,
        main_container: args.main_container_name.clone().filter(|n| !n.is_empty()),
        execd: Execd::at(args.execd_port),
        grace: args.stop_grace_seconds,
        output_limit: args.output_max_mib << 20,
    };
    Ok(Manager::new(settings, store, claims))
}
