//! Ties watches, queue and executors together.

use std::sync::Arc;
use std::time::Duration;

use api_types::auth::{Signer, TokenSecret};
use kube::Client;
use parking_lot::Mutex;
use telemetry::Readiness;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::act::{ActError, Context, Watches, Writer};
use crate::daemons::{Daemons, HttpDaemons};
use crate::events::{Notes, Recorder};
use crate::guard::{Guard, stands};
use crate::health::Health;
use crate::lease::{Alone, Fence, Leadership};
use crate::planner::batch::Settings;
use crate::queue::Queue;
use crate::world::{Key, World};
use crate::{
    Clock, Config, ControllerError, Ids, Metrics, RandomIds, SystemClock, clock, permissions, takeover, watch,
};

/// How long looks at objects that are under way may take at the end; what is left undone is found again at the next
/// start. With [`CLAIMS`] and the release of the lease this stays below the 10 s that Kubernetes is asked to give.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long claims under way may take after that.
const CLAIMS: Duration = Duration::from_secs(1);

/// Runs a controller until `shutdown` is cancelled or it cannot go on.
pub async fn run(client: Client, config: Config, shutdown: CancellationToken) -> Result<(), ControllerError> {
    Controller::new(client, config).run(shutdown).await
}

/// A controller with everything it needs from outside.
pub struct Controller {
    client: Client,
    config: Config,
    daemons: Option<Arc<dyn Daemons>>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    metrics: Metrics,
    readiness: Option<Readiness>,
}

impl Controller {
    /// With the machine's clock and randomness, and daemons over HTTP.
    pub fn new(client: Client, config: Config) -> Self {
        Self {
            client,
            config,
            daemons: None,
            clock: Arc::new(SystemClock),
            ids: Arc::new(RandomIds),
            metrics: Metrics::default(),
            readiness: None,
        }
    }

    /// With other daemons.
    #[must_use]
    pub fn with_daemons(mut self, daemons: Arc<dyn Daemons>) -> Self {
        self.daemons = Some(daemons);
        self
    }

    /// With another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// With metrics that are shown somewhere.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// With checks that are shown somewhere; the API server is asked which verbs are granted.
    #[must_use]
    pub fn with_readiness(mut self, readiness: Readiness) -> Self {
        self.readiness = Some(readiness);
        self
    }

    /// With other names.
    #[must_use]
    pub fn with_ids(mut self, ids: Arc<dyn Ids>) -> Self {
        self.ids = ids;
        self
    }

    /// Runs until `shutdown` is cancelled or it cannot go on.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ControllerError> {
        if self.config.concurrency == 0 || self.config.daemon_concurrency == 0 {
            return Err(ControllerError::Config("concurrency must be at least 1".to_owned()));
        }
        let election = self.config.leader_election.clone();
        let health = Health::new(&self.readiness.clone().unwrap_or_default(), election.is_some());
        let leadership = election.map(|election| {
            let (client, clock) = (self.client.clone(), self.clock.clone());
            Arc::new(Leadership::new(client, clock, election, health.lease.clone()))
        });
        let fence: Arc<dyn Fence> = match &leadership {
            Some(leadership) => leadership.clone(),
            None => Arc::new(Alone),
        };
        // Not a child of `shutdown`: what is under way then still needs it for a moment.
        let (ctx, recorder) = self.context(fence, health, CancellationToken::new());
        self.metrics.watch(&ctx);
        let verified = async {
            if self.readiness.is_some() {
                let lease = self.config.leader_election.as_ref().map(|e| e.namespace.as_str());
                permissions::verify(&self.client, &self.config.namespaces, lease, &ctx.health.permissions).await;
            }
            std::future::pending::<()>().await;
        };
        let ended = tokio::select! {
            biased;
            ended = lead(&ctx, leadership.as_deref(), &shutdown) => ended,
            ended = watch::all(&ctx, &self.client) => ended,
            () = recorder.run() => Ok(()),
            () = verified => Ok(()),
        };
        ctx.watches.clear();
        ctx.background.close();
        if tokio::time::timeout(CLAIMS, ctx.background.wait()).await.is_err() {
            tracing::info!("claims under way are cut off; the next leader makes them again");
        }
        ctx.shutdown.cancel();
        ctx.background.wait().await;
        self.metrics.leads(false);
        if let Some(leadership) = leadership {
            leadership.release().await;
        }
        ended
    }

    fn context(&self, fence: Arc<dyn Fence>, health: Health, shutdown: CancellationToken) -> (Arc<Context>, Recorder) {
        let signer = Signer::from_seed(&self.config.signer_seed);
        let settings = Settings { daemon_key: signer.daemon_key() };
        let daemons = self.daemons.clone();
        let daemons = daemons.unwrap_or_else(|| Arc::new(HttpDaemons::new(signer, self.clock.clone())));
        let (notes, recorder) = Notes::new(self.client.clone(), self.clock.clone());
        let mut world = World::of(&self.config.namespaces);
        world.stand_by();
        let context = Context {
            world: Mutex::new(world),
            queue: Queue::default(),
            writer: Writer::new(self.client.clone(), fence),
            daemons,
            clock: self.clock.clone(),
            ids: self.ids.clone(),
            notes,
            metrics: self.metrics.clone(),
            health,
            watches: Watches::default(),
            settings,
            token_secret: TokenSecret::new(self.config.token_secret),
            config: self.config.clone(),
            calls: Arc::new(Semaphore::new(self.config.daemon_concurrency)),
            background: TaskTracker::new(),
            shutdown,
            synced: Notify::new(),
        };
        (Arc::new(context), recorder)
    }
}

/// Waits until we lead, then works until `shutdown`. The watches run meanwhile, so that a standby knows everything.
async fn lead(
    ctx: &Arc<Context>,
    leadership: Option<&Leadership>,
    shutdown: &CancellationToken,
) -> Result<(), ControllerError> {
    let Some(leadership) = leadership else {
        work(ctx, shutdown).await;
        return Ok(());
    };
    let Some(number) = shutdown.run_until_cancelled(leadership.acquire()).await else { return Ok(()) };
    let identity = ctx.config.leader_election.as_ref().map_or("", |e| e.identity.as_str());
    tracing::info!(number, identity, "leading");
    let begin = async {
        let mark = format!("{number} {identity}");
        if shutdown.run_until_cancelled(takeover::barrier(ctx, &mark)).await.is_some() {
            work(ctx, shutdown).await;
        }
    };
    tokio::select! {
        biased;
        lost = leadership.keep() => Err(lost),
        () = begin => Ok(()),
    }
}

/// Works on keys, so many at a time, once everything was listed. After `shutdown` no further one is begun.
async fn work(ctx: &Arc<Context>, shutdown: &CancellationToken) {
    let listed = async {
        while stands(Guard::Listed) && !ctx.world.lock().is_synced() {
            ctx.synced.notified().await;
        }
    };
    if shutdown.run_until_cancelled(listed).await.is_none() {
        return;
    }
    ctx.update(World::lead);
    ctx.metrics.leads(true);
    let keys = ctx.world.lock().all_keys();
    tracing::info!(objects = keys.len(), "everything is listed; starting to work");
    ctx.queue.add(keys);
    let mut workers = JoinSet::new();
    let dispatched = async {
        loop {
            while workers.len() >= ctx.config.concurrency {
                workers.join_next().await;
            }
            while workers.try_join_next().is_some() {}
            let key = ctx.queue.next().await;
            workers.spawn(look(ctx.clone(), key));
        }
    };
    let set = async {
        loop {
            clock::was_set(&*ctx.clock).await;
            tracing::info!("the clock was set; looking at everything again");
            let keys = ctx.world.lock().all_keys();
            ctx.queue.add(keys);
        }
    };
    let working = async {
        tokio::select! {
            biased;
            () = dispatched => {}
            () = set => {}
        }
    };
    let _: Option<()> = shutdown.run_until_cancelled(working).await;
    let finish = async { while workers.join_next().await.is_some() {} };
    if tokio::time::timeout(FAREWELL, finish).await.is_err() {
        tracing::warn!("work under way was cut off");
    }
    workers.shutdown().await;
}

/// One look at one object.
async fn look(ctx: Arc<Context>, key: Key) {
    let begun = Instant::now();
    let result = ctx.reconcile(&key).await;
    let kind = match &key {
        Key::Pool(_) => "pool",
        Key::Batch(_) => "batchsandbox",
    };
    ctx.metrics.reconciled(kind, begun.elapsed(), result.is_err());
    match result {
        Ok(again) => ctx.queue.done(key, again, false),
        Err(error) => {
            if !matches!(error, ActError::NotLeader) {
                tracing::warn!(object = %key, %error, "not done, tried again later");
            }
            ctx.queue.done(key, None, true);
        }
    }
}
