//! Plays a story to its end.

use std::sync::Arc;
use std::time::Duration;

use api_types::crd;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt as _};
use local_api::{Api as LocalApi, Options};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::daemons::Guests;
use crate::history::{Change, History, Object};
use crate::invariants::{self, Violation};
use crate::network::Peer;
use crate::node::Node;
use crate::process::{Process, Surroundings};
use crate::rest;
use crate::story::{Act, Story};
use crate::surroundings::{SimClock, SimIds};
use crate::user::User;

/// No change for so long is rest: longer than any back-off or retry.
const QUIET: Duration = Duration::from_secs(100);
/// Rest must come within this time after the last trouble.
const PATIENCE: Duration = Duration::from_secs(1_800);
/// At rest, nothing is written for this long.
const SLEEP: Duration = Duration::from_secs(600);

/// How a story ended.
#[derive(Debug)]
pub struct Outcome {
    /// The first rule that was broken.
    pub violation: Option<Violation>,
    /// Pods that were given to a sandbox.
    pub claims: usize,
    /// Writes that the controllers sent.
    pub writes: u64,
    /// Simulated time.
    pub lasted: Duration,
    /// Changes of pods, Pools and BatchSandboxes, in order.
    pub history: Vec<Arc<Change>>,
}

impl Outcome {
    /// SHA-256 of every change in order: equal for equal runs.
    pub fn trace(&self) -> String {
        let mut digest = Sha256::new();
        for change in &self.history {
            digest.update(change.version.to_be_bytes());
            let object = match &change.object {
                Object::Pod(o) => serde_json::to_vec(o),
                Object::Pool(o) => serde_json::to_vec(o),
                Object::Batch(o) => serde_json::to_vec(o),
            };
            digest.update(object.unwrap_or_default());
        }
        digest.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }
}

/// Plays a story on this thread.
pub fn run(story: &Story) -> std::io::Result<Outcome> {
    // Libraries below draw from this generator.
    fastrand::seed(story.seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    Ok(runtime.block_on(play(story)))
}

struct World {
    clock: Arc<SimClock>,
    user: Arc<User>,
    node: Arc<Node>,
    guests: Arc<Guests>,
    processes: Vec<Arc<Process>>,
    history: Arc<History>,
}

async fn play(story: &Story) -> Outcome {
    match begin(story).await {
        Ok(world) => world.play(story).await,
        Err(error) => Outcome {
            violation: Some(Violation { rule: "the API can be set up", what: error.to_string() }),
            claims: 0,
            writes: 0,
            lasted: Duration::ZERO,
            history: Vec::new(),
        },
    }
}

async fn begin(story: &Story) -> kube::Result<World> {
    let clock = Arc::new(SimClock::new());
    let ids = Arc::new(SimIds::new(story.seed));
    let options = Options { clock: clock.clone(), ids: ids.clone(), ..Options::default() };
    let api = LocalApi::in_memory_with(options);
    let client = api.client("default");
    prepare(&client).await?;

    let history = History::follow(&client, &clock);
    let node = Node::new(client.clone(), clock.clone(), story.seed);
    tokio::spawn(node.clone().run());
    let guests = Guests::new(node.clone(), story.seed);
    let surroundings = Arc::new(Surroundings {
        api,
        clock: clock.clone(),
        ids,
        guests: guests.clone(),
        seed: story.seed,
        elected: story.controllers > 1,
    });
    let processes: Vec<_> = (0..story.controllers).map(|n| Process::new(n, surroundings.clone())).collect();
    for process in &processes {
        tokio::spawn(process.clone().run());
    }
    Ok(World { clock, user: Arc::new(User::new(client)), node, guests, processes, history })
}

async fn prepare(client: &Client) -> kube::Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in crd::all() {
        crds.create(&PostParams::default(), &definition).await?;
    }
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for name in ["default", "opensandbox-system"] {
        if namespaces.get_opt(name).await?.is_none() {
            let namespace = serde_json::from_value(json!({"metadata": {"name": name}}));
            namespaces.create(&PostParams::default(), &namespace.map_err(kube::Error::SerdeError)?).await?;
        }
    }
    Ok(())
}

impl World {
    async fn play(self, story: &Story) -> Outcome {
        let begin = tokio::time::Instant::now();
        for step in &story.steps {
            tokio::time::sleep_until(begin + Duration::from_millis(u64::from(step.at))).await;
            self.act(&step.act);
        }
        self.calm().await;
        let violation = self.judge(story).await.err();
        Outcome {
            violation,
            claims: self.guests.accepted().len(),
            writes: self.processes.iter().map(|p| p.writes()).sum(),
            lasted: self.clock.elapsed(),
            history: self.history.all().unwrap_or_default(),
        }
    }

    async fn judge(&self, story: &Story) -> Result<(), Violation> {
        let rested = self.rest().await;
        let history = self.history.all().map_err(|what| Violation { rule: "the history is whole", what })?;
        // What was broken on the way explains a missing rest better than the rest itself.
        let view = invariants::check(&history, &self.guests.accepted())?;
        rested?;
        rest::check(&view)?;
        // An Event may be lost with its controller; where nothing went wrong none is.
        if !story.steps.iter().any(|step| step.act.is_fault()) {
            let remembered = self.user.remembered().await;
            let remembered = remembered.map_err(|e| Violation { rule: "events can be read", what: e.to_string() })?;
            rest::remembered(&history, &view, &remembered)?;
        }
        let before = self.history.version();
        tokio::time::sleep(SLEEP).await;
        match self.history.after(before) {
            None => Ok(()),
            Some(change) => Err(Violation { rule: "at rest nothing is written", what: line(&change) }),
        }
    }

    /// Waits until nothing changes any more.
    async fn rest(&self) -> Result<(), Violation> {
        let begin = tokio::time::Instant::now();
        let mut seen = (self.history.version(), begin);
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            let (now, version) = (tokio::time::Instant::now(), self.history.version());
            if version != seen.0 {
                seen = (version, now);
            } else if now - seen.1 >= QUIET && !self.expires() {
                return Ok(());
            }
            if now - begin > PATIENCE {
                let last = self.history.last().map(|change| line(&change)).unwrap_or_default();
                return Err(Violation { rule: "the system comes to rest", what: format!("last: {last}") });
            }
        }
    }

    /// Whether something is still to end by itself.
    fn expires(&self) -> bool {
        self.history.last_expiry().is_some_and(|at| at > self.clock.wall())
    }

    /// Nothing is wrong any more; what was stopped runs again.
    async fn calm(&self) {
        for process in &self.processes {
            process.peer().calm();
        }
        self.guests.calm();
        self.node.heal().await;
    }

    fn peer(&self, controller: u8) -> Arc<Peer> {
        let at = usize::from(controller) % self.processes.len().max(1);
        self.processes[at].peer()
    }

    fn act(&self, act: &Act) {
        let millis = |ms: u32| Duration::from_millis(u64::from(ms));
        match *act {
            Act::FailPod { nth } => self.on_pod(nth, |node, pod| async move { node.fail(&pod).await }),
            Act::RestartPod { nth } => {
                if let Some(pod) = self.node.nth(nth) {
                    self.guests.restart(&pod);
                }
                self.on_pod(nth, |node, pod| async move { node.restart(&pod).await });
            }
            Act::Barren { pods } => self.node.barren(pods),
            Act::NodeLost { seconds } => {
                let node = self.node.clone();
                tokio::spawn(async move { node.lose(Duration::from_secs(u64::from(seconds))).await });
            }
            Act::Hang { nth, millis: ms } => {
                self.node.nth(nth).into_iter().for_each(|p| self.guests.hang(p, millis(ms)));
            }
            Act::Refuse { nth } => self.node.nth(nth).into_iter().for_each(|pod| self.guests.refuse(pod)),
            Act::Write { controller, skip, fault } => self.peer(controller).arm(skip, fault),
            Act::Kill { controller } => self.peer(controller).kill(),
            Act::Pause { controller, millis: ms } => self.peer(controller).hold(millis(ms)),
            Act::Stale { controller, resource, millis: ms } => self.peer(controller).delay(resource, millis(ms)),
            Act::Cut { controller } => self.peer(controller).cut(),
            Act::Gone { controller } => self.peer(controller).expire(),
            Act::Clock { seconds } => self.clock.step(seconds),
            _ => {
                let (user, act, clock) = (self.user.clone(), act.clone(), self.clock.clone());
                tokio::spawn(async move { user.act(&act, &clock).await });
            }
        }
    }

    fn on_pod<F>(&self, nth: u8, what: impl FnOnce(Arc<Node>, String) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if let Some(pod) = self.node.nth(nth) {
            tokio::spawn(what(self.node.clone(), pod));
        }
    }
}

/// One change as people read it.
pub fn line(change: &Change) -> String {
    let (kind, name, status) = match &change.object {
        Object::Pod(o) => {
            let phase = o.status.as_ref().and_then(|s| s.phase.clone());
            let going = o.metadata.deletion_timestamp.is_some();
            ("pod", o.name_any(), json!({"phase": phase, "going": going, "labels": o.labels()}))
        }
        Object::Pool(o) => ("pool", o.name_any(), json!(o.status)),
        Object::Batch(o) => {
            let going = o.metadata.deletion_timestamp.is_some();
            ("batch", o.name_any(), json!({"replicas": o.spec.replicas, "going": going, "status": o.status}))
        }
    };
    let gone = if change.gone { " GONE" } else { "" };
    format!("{:>9.3} s  {:>5}  {kind} {name}{gone} {status}", change.at.as_secs_f64(), change.version)
}
