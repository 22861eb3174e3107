//! Acting: carries plans out, feeds the answers back into the world. Decides nothing.

mod api;
mod batch;
mod claims;
mod measure;
mod pool;
mod refusals;
mod watches;

use std::sync::Arc;
use std::time::Duration;

use api_types::auth::TokenSecret;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use api::{ActError, Writer};
pub(crate) use watches::Watches;

use crate::daemons::Daemons;
use crate::events::Notes;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::planner::batch::Settings;
use crate::queue::Queue;
use crate::world::{Key, World};
use crate::{Clock, Config, Ids};

/// Pods created or deleted at once for one object.
const PODS_AT_ONCE: usize = 32;

/// Everything an executor needs.
pub(crate) struct Context {
    pub(crate) world: Mutex<World>,
    pub(crate) queue: Queue,
    pub(crate) writer: Writer,
    pub(crate) daemons: Arc<dyn Daemons>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn Ids>,
    pub(crate) notes: Notes,
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
    pub(crate) watches: Watches,
    pub(crate) settings: Settings,
    pub(crate) token_secret: TokenSecret,
    pub(crate) config: Config,
    pub(crate) calls: Arc<Semaphore>,
    pub(crate) background: TaskTracker,
    pub(crate) shutdown: CancellationToken,
    /// Notified when a kind was listed.
    pub(crate) synced: Notify,
}

impl Context {
    /// Changes the world and queues what that touched.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let now = self.clock.now();
        let mut world = self.world.lock();
        world.set_time(now);
        let result = change(&mut world);
        let (touched, started) = (world.take_touched(), world.take_started());
        drop(world);
        self.queue.add(touched);
        if !started.is_empty() && self.leads() {
            started.iter().for_each(|start| self.metrics.started(start));
        }
        result
    }

    /// Whether we may write now.
    pub(crate) fn leads(&self) -> bool {
        self.writer.may_write()
    }

    /// Starts something that ends with the controller.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let shutdown = self.shutdown.clone();
        self.background.spawn(async move {
            shutdown.run_until_cancelled_owned(work).await;
        })
    }

    /// Looks at one object and does what its plan says. The answer is when to look again.
    pub(crate) async fn reconcile(self: &Arc<Self>, key: &Key) -> Result<Option<Duration>, ActError> {
        match key {
            Key::Pool(name) => pool::reconcile(self, name).await,
            Key::Batch(name) => batch::reconcile(self, name).await,
        }
    }
}
