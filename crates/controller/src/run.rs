//! Ties watches, queue and executors together.

use std::sync::Arc;
use std::time::Duration;

use api_types::auth::{Signer, TokenSecret};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::act::{ActError, Context, Watches, Writer};
use crate::daemons::{Daemons, HttpDaemons};
use crate::events::Notes;
use crate::lease::{Alone, Fence, Leadership};
use crate::planner::batch::Settings;
use crate::queue::Queue;
use crate::world::World;
use crate::{Clock, Config, ControllerError, Ids, RandomIds, SystemClock, watch};

/// How long work under way may take at the end; what is left undone is found again at the next start.
const FAREWELL: Duration = Duration::from_secs(5);

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
}

impl Controller {
    /// With the machine's clock and randomness, and daemons over HTTP.
    pub fn new(client: Client, config: Config) -> Self {
        Self { client, config, daemons: None, clock: Arc::new(SystemClock), ids: Arc::new(RandomIds) }
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
        let leadership = self
            .config
            .leader_election
            .clone()
            .map(|election| Arc::new(Leadership::new(self.client.clone(), self.clock.clone(), election)));
        let fence: Arc<dyn Fence> = match &leadership {
            Some(leadership) => leadership.clone(),
            None => Arc::new(Alone),
        };
        let (ctx, recorder) = self.context(fence, shutdown.child_token());
        let ended = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            ended = work(&ctx, &self.client, leadership.as_deref()) => ended,
            () = recorder.run() => Ok(()),
        };
        ctx.watches.clear();
        ctx.shutdown.cancel();
        ctx.background.close();
        if tokio::time::timeout(FAREWELL, ctx.background.wait()).await.is_err() {
            tracing::warn!("work under way was cut off");
        }
        ended
    }

    fn context(&self, fence: Arc<dyn Fence>, shutdown: CancellationToken) -> (Arc<Context>, crate::events::Recorder) {
        let signer = Signer::from_seed(&self.config.signer_seed);
        let settings = Settings { daemon_key: signer.daemon_key() };
        let daemons = self.daemons.clone();
        let daemons = daemons.unwrap_or_else(|| Arc::new(HttpDaemons::new(signer, self.clock.clone())));
        let (notes, recorder) = Notes::new(self.client.clone(), self.clock.clone());
        let context = Context {
            world: Mutex::new(World::new()),
            queue: Queue::default(),
            writer: Writer::new(self.client.clone(), fence),
            daemons,
            clock: self.clock.clone(),
            ids: self.ids.clone(),
            notes,
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

/// Leads, watches and works.
async fn work(ctx: &Arc<Context>, client: &Client, leadership: Option<&Leadership>) -> Result<(), ControllerError> {
    if let Some(leadership) = leadership {
        leadership.acquire().await;
    }
    let lease = async {
        match leadership {
            Some(leadership) => Err(leadership.keep().await),
            None => std::future::pending().await,
        }
    };
    let (pods, pools, batches) = match &ctx.config.namespace {
        Some(namespace) => (
            Api::namespaced(client.clone(), namespace),
            Api::namespaced(client.clone(), namespace),
            Api::namespaced(client.clone(), namespace),
        ),
        None => (Api::all(client.clone()), Api::all(client.clone()), Api::all(client.clone())),
    };
    tokio::select! {
        ended = lease => ended,
        ended = watch::pods(ctx.clone(), pods) => ended,
        ended = watch::pools(ctx.clone(), pools) => ended,
        ended = watch::batches(ctx.clone(), batches) => ended,
        () = dispatch(ctx) => Ok(()),
    }
}

/// Works on keys, so many at a time, once everything was listed.
async fn dispatch(ctx: &Arc<Context>) {
    while !ctx.world.lock().is_synced() {
        ctx.synced.notified().await;
    }
    let keys = ctx.world.lock().all_keys();
    tracing::info!(objects = keys.len(), "controller has listed everything and starts working");
    ctx.queue.add(keys);
    let mut workers = JoinSet::new();
    loop {
        while workers.len() >= ctx.config.concurrency {
            workers.join_next().await;
        }
        while workers.try_join_next().is_some() {}
        let key = ctx.queue.next().await;
        let ctx = ctx.clone();
        workers.spawn(ctx.background.clone().track_future(async move {
            let result = ctx.reconcile(&key).await;
            match result {
                Ok(again) => ctx.queue.done(key, again, false),
                Err(error) => {
                    if !matches!(error, ActError::NotLeader) {
                        tracing::warn!(object = %key, %error, "not done, tried again later");
                    }
                    ctx.queue.done(key, None, true);
                }
            }
        }));
    }
}
