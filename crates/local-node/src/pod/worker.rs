//! One task for each pod: looks, decides, has it done, and tells the API.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;

use super::context::Context;
use super::decide::{self, Action, Decision, SandboxPhase};
use super::events::Kind;
use super::memory::{Memory, Waiting};
use super::probe::{self, Purpose, Report, Target};
use super::start::{self, Made, Trouble, find};
use super::{references, status, stop};
use crate::env::NodeFacts;
use crate::shim::client::{Session, Shim, ShimError};
use crate::shim::journal;
use crate::shim::proto::{PodState, Reply, Request};
use crate::volumes::objects::ObjectKind;

/// Messages that may wait for a worker.
const QUEUE: usize = 64;
/// Pause before a status is written again that the API did not take.
const RETRY: Duration = Duration::from_secs(1);
/// Pause before a broken connection to a shim is opened again.
const REOPEN: Duration = Duration::from_millis(20);

/// What others may see of a pod that runs here.
pub struct Shared {
    /// The pod's directory.
    pub dir: PathBuf,
    /// State of its containers.
    pub state: watch::Sender<PodState>,
    /// Its address.
    pub ip: Mutex<Option<String>>,
}

/// A pod's worker, as the node holds it.
pub struct Handle {
    /// What streams need.
    pub shared: Arc<Shared>,
    refresh: Arc<Notify>,
    pod: watch::Sender<Option<Arc<Pod>>>,
    task: JoinHandle<()>,
}

/// What is known of a container's image before it starts.
struct ImageFacts {
    id: String,
    name: String,
    stop_signal: Option<i32>,
}

enum Message {
    State(PodState),
    ShimGone,
    Report(Report),
    Made(Result<Made, Trouble>),
    Prepared(String, ImageFacts),
    Started(String, u32, Result<(), Trouble>),
    /// A container, its run, and whether its postStart hook has succeeded.
    Hooked(String, String, bool),
    ContainerStopped(String),
    Refreshed(Option<String>),
    Reset(Option<PodState>),
    Ended,
    Stopped,
    Removed,
}

struct Worker {
    context: Arc<Context>,
    uid: String,
    pod: Arc<Pod>,
    gone: bool,
    shared: Arc<Shared>,
    made: Option<Made>,
    sandbox: SandboxPhase,
    memory: Memory,
    starting: bool,
    /// The start of a container, which may wait long for its image and can be given up.
    start_task: Option<AbortHandle>,
    /// The sandbox is being made, which is short and must not be given up half way.
    making: bool,
    ending: bool,
    removing: bool,
    stopping: BTreeSet<String>,
    tasks: Vec<AbortHandle>,
    probes: BTreeMap<String, (String, Vec<AbortHandle>)>,
    status: Option<PodStatus>,
    written: Option<PodStatus>,
    retry: Option<Instant>,
    inbox: mpsc::Sender<Message>,
}

impl Handle {
    /// Starts a worker; it finds by itself what an earlier node left running.
    pub fn start(context: Arc<Context>, pod: Arc<Pod>) -> Self {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let shared = Arc::new(Shared {
            dir: context.pod_dir(&uid),
            state: watch::Sender::new(PodState::default()),
            ip: Mutex::new(None),
        });
        let (sender, pods) = watch::channel(Some(Arc::clone(&pod)));
        let (inbox, messages) = mpsc::channel(QUEUE);
        let worker = Worker {
            context,
            uid,
            status: pod.status.clone(),
            written: pod.status.clone(),
            pod,
            gone: false,
            shared: Arc::clone(&shared),
            made: None,
            sandbox: SandboxPhase::Absent,
            memory: Memory::default(),
            starting: false,
            start_task: None,
            making: false,
            ending: false,
            removing: false,
            stopping: BTreeSet::new(),
            tasks: Vec::new(),
            probes: BTreeMap::new(),
            retry: None,
            inbox,
        };
        let refresh = Arc::new(Notify::new());
        let task = tokio::spawn(worker.run(pods, messages, Arc::clone(&refresh)));
        Self { shared, refresh, pod: sender, task }
    }

    /// Tells the pod's newest object, or that there is none any more.
    pub fn update(&self, pod: Option<Arc<Pod>>) {
        self.pod.send_replace(pod);
    }

    /// Tells that an object has changed that the pod refers to.
    pub fn refresh(&self) {
        self.refresh.notify_one();
    }

    /// Whether the pod refers to a ConfigMap or Secret of this name.
    pub fn refers_to(&self, namespace: &str, kind: ObjectKind, name: &str) -> bool {
        self.pod.borrow().as_ref().is_some_and(|pod| {
            pod.metadata.namespace.as_deref() == Some(namespace) && references::refers_to(pod, kind, name)
        })
    }

    /// Whether the pod is gone and its worker with it.
    pub fn finished(&self) -> bool {
        self.task.is_finished()
    }
}

impl Drop for Handle {
    /// The node goes; the pod stays.
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        for (_, probes) in self.probes.values() {
            for probe in probes {
                probe.abort();
            }
        }
    }
}

impl Worker {
    async fn run(
        mut self,
        mut pods: watch::Receiver<Option<Arc<Pod>>>,
        mut messages: mpsc::Receiver<Message>,
        refresh: Arc<Notify>,
    ) {
        self.recover().await;
        loop {
            let decision = self.decide();
            let wake = self.act(decision);
            self.tell().await;
            let sleep = match (wake, self.retry) {
                (Some(wake), Some(retry)) => Some(wake.min(retry)),
                (wake, retry) => wake.or(retry),
            };
            tokio::select! {
                changed = pods.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let pod = pods.borrow_and_update().clone();
                    self.adopt(pod);
                }
                () = refresh.notified() => self.refresh(),
                message = messages.recv() => {
                    let Some(message) = message else { return };
                    if self.hear(message).await {
                        return;
                    }
                    while let Ok(message) = messages.try_recv() {
                        if self.hear(message).await {
                            return;
                        }
                    }
                }
                () = tokio::time::sleep_until(sleep.unwrap_or_else(Instant::now)), if sleep.is_some() => {}
            }
        }
    }

    /// Finds out what an earlier node left of this pod.
    async fn recover(&mut self) {
        let dir = self.shared.dir.clone();
        if !dir.exists() {
            return;
        }
        let shim = Shim::at(&dir);
        match shim.state().await {
            Ok(state) => {
                let address = self.context.network.address_of(&self.uid).map(|address| address.ip.to_string());
                match address {
                    Some(ip) => {
                        self.has_sandbox(Made { shim, ip, pause_pid: state.pause_pid });
                        self.remember_images();
                        self.see(state);
                    }
                    None => {
                        // Half made when the node died: nothing has run in it.
                        stop::everything(&self.context, &self.uid).await;
                    }
                }
            }
            Err(_) => {
                let state = journal::replay(&dir).unwrap_or_default();
                let finished = matches!(
                    self.pod.status.as_ref().and_then(|status| status.phase.as_deref()),
                    Some("Succeeded" | "Failed")
                );
                let begun = !state.containers.is_empty();
                stop::sandbox(&self.context, &self.uid).await;
                self.sandbox = match (begun, finished) {
                    (_, true) => SandboxPhase::Stopped,
                    (true, false) => SandboxPhase::Lost,
                    (false, false) => SandboxPhase::Absent,
                };
                self.shared.state.send_replace(state);
            }
        }
    }

    /// Image identities are told by the status that an earlier node wrote.
    fn remember_images(&mut self) {
        let old = self.status.clone().unwrap_or_default();
        let statuses = old.container_statuses.into_iter().chain(old.init_container_statuses).flatten();
        for status in statuses {
            let memory = self.memory.of(&status.name);
            memory.image_id = status.image_id;
            memory.image = status.image;
        }
    }

    fn adopt(&mut self, pod: Option<Arc<Pod>>) {
        match pod {
            Some(pod) => {
                // Conditions of others come with the object; the rest of the status is ours to say.
                if let (Some(mine), Some(theirs)) = (&mut self.status, &pod.status) {
                    merge_foreign(mine, theirs);
                }
                let renamed = |map: fn(&Pod) -> Option<&BTreeMap<String, String>>| map(&pod) != map(&self.pod);
                let told =
                    renamed(|pod| pod.metadata.labels.as_ref()) || renamed(|pod| pod.metadata.annotations.as_ref());
                self.pod = pod;
                if told && references::shows_itself(&self.pod) {
                    self.refresh();
                }
            }
            None => self.gone = true,
        }
        if (self.gone || self.pod.metadata.deletion_timestamp.is_some())
            && let Some(task) = self.start_task.take()
        {
            // An order that has reached the shim is carried out, and what it starts is ended with the rest.
            task.abort();
            self.starting = false;
        }
    }

    fn decide(&self) -> Decision {
        if self.gone {
            let actions = if self.removing || self.making { Vec::new() } else { vec![Action::Remove] };
            return Decision { actions, wake: None };
        }
        if self.removing {
            return Decision::default();
        }
        let state = self.shared.state.borrow();
        let pod = self.with_own_status();
        decide::decide(&decide::View {
            pod: &pod,
            state: &state,
            memory: &self.memory,
            sandbox: self.sandbox,
            starting: self.starting,
            ending: self.ending,
            now: Timestamp::now(),
        })
    }

    fn with_own_status(&self) -> Pod {
        Pod { status: self.status.clone(), ..(*self.pod).clone() }
    }

    fn act(&mut self, decision: Decision) -> Option<Instant> {
        for action in decision.actions {
            match action {
                Action::MakeSandbox => self.make_sandbox(),
                Action::Start { container, attempt } => self.start(container, attempt),
                Action::Restart { container, reason } => self.restart(container, reason),
                Action::End => self.end(),
                Action::Reset => self.reset(),
                Action::StopSandbox => self.stop_sandbox(),
                Action::Remove => self.remove(),
            }
        }
        decision.wake.map(|wake| {
            let left = wake.duration_since(Timestamp::now());
            Instant::now() + Duration::try_from(left).unwrap_or_default() + Duration::from_millis(1)
        })
    }

    fn spawn(&mut self, work: impl Future<Output = Message> + Send + 'static) -> AbortHandle {
        let inbox = self.inbox.clone();
        let task = tokio::spawn(async move {
            let message = work.await;
            let _ = inbox.send(message).await;
        });
        self.tasks.retain(|task| !task.is_finished());
        let handle = task.abort_handle();
        self.tasks.push(handle.clone());
        handle
    }

    fn make_sandbox(&mut self) {
        self.starting = true;
        self.making = true;
        let (context, pod) = (Arc::clone(&self.context), Arc::clone(&self.pod));
        self.spawn(async move { Message::Made(start::sandbox(&context, &pod).await) });
    }

    fn start(&mut self, container: String, attempt: u32) {
        let Some(made) = self.made.clone() else { return };
        if let Some(run) = self.shared.state.borrow().current(&container)
            && let Some(outcome) = &run.outcome
        {
            self.memory.of(&container).backoff.restarted(run.started_at, outcome.finished_at);
        }
        self.starting = true;
        let (context, pod, inbox) = (Arc::clone(&self.context), Arc::clone(&self.pod), self.inbox.clone());
        let task = self.spawn(async move {
            let start = async {
                let prepared = start::prepare(&context, &pod, &made, &container, attempt).await?;
                // Known before the container runs, so that no status tells of it without its image.
                let facts =
                    ImageFacts { id: prepared.image_id, name: prepared.image_name, stop_signal: prepared.stop_signal };
                let news = Message::Prepared(container.clone(), facts);
                let _ = inbox.send(news).await;
                start::run(&context, &pod, &made, prepared.request).await
            };
            let result = start.await;
            Message::Started(container, attempt, result)
        });
        self.start_task = Some(task);
    }

    fn restart(&mut self, container: String, reason: String) {
        if !self.stopping.insert(container.clone()) {
            return;
        }
        let message = format!("Container {container} {reason}, will be restarted");
        self.context.recorder.record(&self.pod, Some(&container), Kind::Normal, "Killing", message);
        let grace = self.memory.of(&container).unhealthy_grace.unwrap_or_else(|| self.grace());
        self.stop_container(container, Instant::now() + grace);
    }

    fn stop_container(&mut self, container: String, deadline: Instant) {
        let Some(ending) = self.ending_pod() else { return };
        let signal = self.memory.of(&container).stop_signal;
        self.spawn(async move {
            stop::container(&ending, &container, signal, deadline).await;
            Message::ContainerStopped(container)
        });
    }

    fn ending_pod(&self) -> Option<stop::Ending> {
        Some(stop::Ending {
            context: Arc::clone(&self.context),
            pod: Arc::clone(&self.pod),
            made: self.made.clone()?,
            state: self.shared.state.subscribe(),
        })
    }

    fn grace(&self) -> Duration {
        let seconds = self.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
        Duration::from_secs(seconds.max(0) as u64)
    }

    fn end(&mut self) {
        let Some(ending) = self.ending_pod() else { return };
        self.ending = true;
        self.stop_probes();
        let deadline = match &self.pod.metadata.deletion_timestamp {
            Some(time) => {
                let left = time.0.duration_since(Timestamp::now());
                Instant::now() + Duration::try_from(left).unwrap_or_default()
            }
            None => Instant::now() + self.grace(),
        };
        let running: Vec<(String, Option<i32>)> = {
            let state = self.shared.state.borrow();
            let running = state.containers.keys().filter(|name| state.current(name).is_some_and(|run| run.running()));
            running
                .map(|name| (name.clone(), self.memory.containers.get(name).and_then(|memory| memory.stop_signal)))
                .collect()
        };
        self.spawn(async move {
            let stops = running.iter().map(|(name, signal)| stop::container(&ending, name, *signal, deadline));
            futures::future::join_all(stops).await;
            Message::Ended
        });
    }

    fn reset(&mut self) {
        let Some(made) = self.made.clone() else { return };
        self.starting = true;
        for memory in self.memory.containers.values_mut() {
            memory.backoff = Default::default();
        }
        let message = "Every container of the pod starts afresh, as a restart rule says".to_owned();
        self.context.recorder.record(&self.pod, None, Kind::Normal, "RestartingAllContainers", message);
        self.spawn(async move {
            let _ = made.shim.order(&Request::Reset).await;
            Message::Reset(made.shim.state().await.ok())
        });
    }

    fn stop_sandbox(&mut self) {
        self.starting = true;
        // Its end is not a loss from now on.
        if self.sandbox == SandboxPhase::Ready {
            self.sandbox = SandboxPhase::Stopping;
        }
        self.stop_probes();
        let (context, uid) = (Arc::clone(&self.context), self.uid.clone());
        self.spawn(async move {
            let _permit = context.permits.acquire().await;
            stop::sandbox(&context, &uid).await;
            Message::Stopped
        });
    }

    /// Brings the volumes up to date, and tries at once what had to wait for an object.
    fn refresh(&mut self) {
        if let Some(waiting) = &mut self.memory.sandbox {
            waiting.until = Timestamp::now();
        }
        for memory in self.memory.containers.values_mut() {
            if let Some(waiting) = &mut memory.waiting
                && matches!(waiting.reason.as_str(), "CreateContainerConfigError" | "ContainerCreating")
            {
                waiting.until = Timestamp::now();
            }
        }
        let Some(made) = self.made.clone().filter(|_| !self.removing && !self.ending) else { return };
        let (context, pod) = (Arc::clone(&self.context), Arc::clone(&self.pod));
        self.spawn(async move {
            let facts = NodeFacts { pod_ip: made.ip.clone(), ..context.facts.clone() };
            let prepared = context.volumes.prepare(&pod, context.as_ref(), &facts).await;
            Message::Refreshed(prepared.err().map(|error| error.to_string()))
        });
    }

    fn remove(&mut self) {
        self.removing = true;
        self.stop_probes();
        for task in self.tasks.drain(..) {
            task.abort();
        }
        let (context, uid) = (Arc::clone(&self.context), self.uid.clone());
        self.spawn(async move {
            let _permit = context.permits.acquire().await;
            stop::everything(&context, &uid).await;
            Message::Removed
        });
    }

    /// Takes a message in; true when the pod is gone.
    async fn hear(&mut self, message: Message) -> bool {
        match message {
            Message::State(state) => self.see(state),
            Message::ShimGone => {
                if self.sandbox == SandboxPhase::Ready && !self.removing {
                    let state = journal::replay(&self.shared.dir).unwrap_or_default();
                    self.shared.state.send_replace(state);
                    self.sandbox = SandboxPhase::Lost;
                    self.stop_probes();
                    let message = "the pod's sandbox process was killed".to_owned();
                    self.context.recorder.record(&self.pod, None, Kind::Warning, "SandboxLost", message);
                    self.stop_sandbox();
                }
            }
            Message::Report(report) => self.judge(report),
            Message::Made(result) => self.sandbox_made(result),
            Message::Prepared(container, image) => {
                let memory = self.memory.of(&container);
                memory.image_id = image.id;
                memory.image = image.name;
                memory.stop_signal = image.stop_signal;
            }
            Message::Started(container, attempt, result) => self.container_started(container, attempt, result).await,
            Message::Hooked(container, id, succeeded) => {
                let memory = self.memory.of(&container);
                if memory.hooked.as_ref() == Some(&id) {
                    memory.hooked = None;
                }
                // A failed hook ends its container, as a failed startup probe does.
                if !succeeded && memory.probed == id {
                    memory.unhealthy = Some("failed postStart hook".to_owned());
                }
            }
            Message::ContainerStopped(container) => {
                self.stopping.remove(&container);
            }
            Message::Refreshed(trouble) => {
                if let Some(trouble) = trouble {
                    self.context.recorder.record(&self.pod, None, Kind::Warning, "FailedMount", trouble);
                }
            }
            Message::Reset(state) => {
                self.starting = false;
                // Seen before the next decision, or it would be made again.
                if let Some(state) = state {
                    self.see(state);
                }
            }
            Message::Ended => self.ending = false,
            Message::Stopped => {
                self.starting = false;
                self.made = None;
                *self.shared.ip.lock() = None;
                if self.sandbox != SandboxPhase::Lost {
                    self.sandbox = SandboxPhase::Stopped;
                }
            }
            Message::Removed => {
                if !self.gone {
                    // Whoever holds the object by a finalizer, or watches it, is told how the pod has ended.
                    self.sandbox = SandboxPhase::Stopped;
                    self.removing = false;
                    self.tell().await;
                    self.delete_object().await;
                }
                return true;
            }
        }
        false
    }

    fn sandbox_made(&mut self, result: Result<Made, Trouble>) {
        self.starting = false;
        self.making = false;
        match result {
            Ok(made) => {
                self.memory.sandbox = None;
                self.has_sandbox(made);
            }
            Err(trouble) => {
                let until = self.memory.sandbox_backoff.failed(Timestamp::now());
                let message = if trouble.reason == start::NO_VOLUME {
                    trouble.message
                } else {
                    let message = format!("Failed to create pod sandbox: {}", trouble.message);
                    let told = message.clone();
                    self.context.recorder.record(&self.pod, None, Kind::Warning, "FailedCreatePodSandBox", told);
                    message
                };
                self.memory.sandbox = Some(Waiting { reason: "ContainerCreating".to_owned(), message, until });
            }
        }
    }

    fn has_sandbox(&mut self, made: Made) {
        self.sandbox = SandboxPhase::Ready;
        *self.shared.ip.lock() = Some(made.ip.clone());
        let (shim, inbox) = (made.shim.clone(), self.inbox.clone());
        self.made = Some(made);
        let task = tokio::spawn(async move {
            // The shim tells every change; a connection that breaks while the shim lives is opened again.
            while let Ok(mut session) = shim.connect().await {
                let _ = follow(&mut session, &inbox).await;
                if inbox.is_closed() {
                    return;
                }
                tokio::time::sleep(REOPEN).await;
            }
            let _ = inbox.send(Message::ShimGone).await;
        });
        self.tasks.push(task.abort_handle());
    }

    async fn container_started(&mut self, container: String, attempt: u32, result: Result<(), Trouble>) {
        self.starting = false;
        self.start_task = None;
        // What the start has changed is seen before the next decision, or it would be made twice.
        if let Some(made) = self.made.clone()
            && let Ok(state) = made.shim.state().await
        {
            self.see(state);
        }
        let counted = self.shared.state.borrow().current(&container).is_some_and(|run| run.attempt == attempt);
        let memory = self.memory.of(&container);
        match result {
            Ok(()) => {
                memory.waiting = None;
                memory.trouble = Default::default();
                self.post_start(container);
            }
            // A program that could not run is a run that failed, and backs off as one.
            Err(_) if counted => memory.waiting = None,
            Err(trouble) => {
                let again = memory.trouble.pause().is_some();
                let until = memory.trouble.failed(Timestamp::now());
                let reason = match trouble.reason {
                    "ErrImagePull" if again => "ImagePullBackOff",
                    reason => reason,
                };
                memory.waiting = Some(Waiting { reason: reason.to_owned(), message: trouble.message, until });
            }
        }
    }

    fn post_start(&mut self, container: String) {
        let Some(made) = self.made.clone() else { return };
        let Some(spec) = find(&self.pod, &container) else { return };
        let Some(hook) = spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.clone()) else { return };
        let Some(run) = self.shared.state.borrow().current(&container).cloned() else { return };
        let Ok(ip) = made.ip.parse() else { return };
        let target = Target { shim: made.shim, ip, container: spec.clone(), id: run.id.clone() };
        self.memory.of(&container).hooked = Some(run.id.clone());
        let (context, pod) = (Arc::clone(&self.context), Arc::clone(&self.pod));
        self.spawn(async move {
            let result = probe::hook(&target, &hook, Duration::from_secs(600)).await;
            if let Err(error) = &result {
                let message = format!("PostStartHook failed: {error}");
                context.recorder.record(&pod, Some(&container), Kind::Warning, "FailedPostStartHook", message);
            }
            Message::Hooked(container, run.id, result.is_ok())
        });
    }

    fn see(&mut self, state: PodState) {
        self.shared.state.send_replace(state.clone());
        for (name, runs) in &state.containers {
            let Some(run) = runs.last() else { continue };
            let known = self.probes.get(name).map(|(id, _)| id.clone());
            if !run.running() {
                self.stop_probes_of(name);
            } else if known.as_deref() != Some(run.id.as_str()) && !self.ending && !self.removing {
                self.stop_probes_of(name);
                self.probe(name, &run.id);
            }
        }
    }

    fn probe(&mut self, name: &str, id: &str) {
        let Some(container) = find(&self.pod, name).cloned() else { return };
        let memory = self.memory.of(name);
        id.clone_into(&mut memory.probed);
        memory.unhealthy_grace = None;
        memory.started = container.startup_probe.is_none();
        memory.ready = container.readiness_probe.is_none();
        memory.unhealthy = None;
        self.probes.insert(name.to_owned(), (id.to_owned(), Vec::new()));
        if container.startup_probe.is_some() {
            self.begin_probe(name, id, Purpose::Startup);
        } else {
            self.begin_probe(name, id, Purpose::Readiness);
            self.begin_probe(name, id, Purpose::Liveness);
        }
    }

    fn begin_probe(&mut self, name: &str, id: &str, purpose: Purpose) {
        let (Some(made), Some(container)) = (self.made.clone(), find(&self.pod, name).cloned()) else { return };
        let probe = match purpose {
            Purpose::Startup => container.startup_probe.clone(),
            Purpose::Readiness => container.readiness_probe.clone(),
            Purpose::Liveness => container.liveness_probe.clone(),
        };
        let (Some(probe), Ok(ip)) = (probe, made.ip.parse()) else { return };
        let target = Target { shim: made.shim, ip, container, id: id.to_owned() };
        let (reports, mut received) = mpsc::channel(4);
        let inbox = self.inbox.clone();
        let task = tokio::spawn(async move {
            let probing = probe::repeat(target, probe, purpose, reports);
            let passing = async {
                while let Some(report) = received.recv().await {
                    let _ = inbox.send(Message::Report(report)).await;
                }
            };
            tokio::join!(probing, passing);
        });
        if let Some((_, tasks)) = self.probes.get_mut(name) {
            tasks.push(task.abort_handle());
        }
    }

    fn judge(&mut self, report: Report) {
        let grace = find(&self.pod, &report.container).and_then(|container| match report.purpose {
            Purpose::Startup => container.startup_probe.as_ref()?.termination_grace_period_seconds,
            Purpose::Liveness => container.liveness_probe.as_ref()?.termination_grace_period_seconds,
            Purpose::Readiness => None,
        });
        let memory = self.memory.of(&report.container);
        if memory.probed != report.id {
            return;
        }
        if report.verdict == Some(false) {
            memory.unhealthy_grace = grace.map(|seconds| Duration::from_secs(seconds.max(0).unsigned_abs()));
        }
        let mut next = Vec::new();
        match (report.purpose, report.verdict) {
            (Purpose::Startup, Some(true)) => {
                memory.started = true;
                next = vec![Purpose::Readiness, Purpose::Liveness];
            }
            (Purpose::Readiness, Some(verdict)) => memory.ready = verdict,
            (Purpose::Startup, Some(false)) => memory.unhealthy = Some("failed startup probe".to_owned()),
            (Purpose::Liveness, Some(false)) => memory.unhealthy = Some("failed liveness probe".to_owned()),
            (Purpose::Liveness, Some(true)) | (_, None) => {}
        }
        if let Some(trouble) = report.trouble {
            let message = format!("{} probe failed: {trouble}", report.purpose.title());
            self.context.recorder.record(&self.pod, Some(&report.container), Kind::Warning, "Unhealthy", message);
        }
        for purpose in next {
            self.begin_probe(&report.container, &report.id, purpose);
        }
    }

    fn stop_probes_of(&mut self, name: &str) {
        if let Some((_, tasks)) = self.probes.remove(name) {
            for task in tasks {
                task.abort();
            }
        }
    }

    fn stop_probes(&mut self) {
        for name in self.probes.keys().cloned().collect::<Vec<_>>() {
            self.stop_probes_of(&name);
        }
    }

    fn pods(&self) -> Api<Pod> {
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or("default");
        Api::namespaced(self.context.client.clone(), namespace)
    }

    /// Writes the status when it has changed.
    async fn tell(&mut self) {
        if self.gone || self.removing {
            return;
        }
        let new = status::build(&status::View {
            pod: &self.with_own_status(),
            state: &self.memory.visible(&self.shared.state.borrow()),
            memory: &self.memory,
            sandbox: self.sandbox,
            pod_ip: self.made.as_ref().map(|made| made.ip.clone()),
            host_ip: &self.context.facts.host_ip,
            now: Timestamp::now(),
        });
        self.status = Some(new.clone());
        if status::same(self.written.as_ref(), &new) {
            self.retry = None;
            return;
        }
        let name = self.pod.metadata.name.clone().unwrap_or_default();
        // The UID keeps the status off a namesake that came after this pod.
        let patch = serde_json::json!({"metadata": {"uid": self.uid}, "status": cleared(self.written.as_ref(), &new)});
        match self.pods().patch_status(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => {
                self.written = Some(new);
                self.retry = None;
            }
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => self.retry = None,
            Err(error) => {
                tracing::warn!(pod = name, %error, "status not written");
                self.retry = Some(Instant::now() + RETRY);
            }
        }
    }

    /// Takes the object away once nothing of the pod is left.
    async fn delete_object(&self) {
        let name = self.pod.metadata.name.clone().unwrap_or_default();
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(self.uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        for attempt in 0..5u32 {
            match self.pods().delete(&name, &parameters).await {
                Ok(_) => return,
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => return,
                Err(error) => {
                    tracing::warn!(pod = name, %error, "pod not deleted");
                    tokio::time::sleep(RETRY * (attempt + 1)).await;
                }
            }
        }
    }
}

async fn follow(session: &mut Session, inbox: &mpsc::Sender<Message>) -> Result<(), ShimError> {
    session.send(&Request::Watch, &[]).await?;
    loop {
        match session.receive().await? {
            Reply::State(state) => inbox.send(Message::State(state)).await.map_err(|_| ShimError::Gone)?,
            _ => return Err(ShimError::Protocol),
        }
    }
}

fn merge_foreign(mine: &mut PodStatus, theirs: &PodStatus) {
    const OURS: [&str; 4] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"];
    let foreign = theirs.conditions.iter().flatten().filter(|c| !OURS.contains(&c.type_.as_str()));
    let own = mine.conditions.take().unwrap_or_default().into_iter().filter(|c| OURS.contains(&c.type_.as_str()));
    mine.conditions = Some(own.chain(foreign.cloned()).collect());
}

/// The new status as a merge patch: what was said before and is said no more becomes null.
fn cleared(old: Option<&PodStatus>, new: &PodStatus) -> serde_json::Value {
    let mut value = serde_json::to_value(new).unwrap_or_default();
    if let (Some(Ok(serde_json::Value::Object(old))), serde_json::Value::Object(new)) =
        (old.map(serde_json::to_value), &mut value)
    {
        for key in old.keys() {
            new.entry(key.clone()).or_insert(serde_json::Value::Null);
        }
    }
    value
}
