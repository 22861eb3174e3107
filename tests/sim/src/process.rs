//! One controller as a process: started, killed, started again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use controller::{Config, Controller, LeaderElection};
use local_api::Api;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::daemons::{Guests, Line};
use crate::network::{Gate, Peer};
use crate::surroundings::{SimClock, SimIds, chance};

/// How long after its end a process is started again.
const AGAIN: Duration = Duration::from_secs(1);

/// What a process needs to start.
pub struct Surroundings {
    /// The API.
    pub api: Api,
    /// Wall time.
    pub clock: Arc<SimClock>,
    /// Names.
    pub ids: Arc<SimIds>,
    /// Daemons.
    pub guests: Arc<Guests>,
    /// Seed of the story.
    pub seed: u64,
    /// Whether several controllers share a lease.
    pub elected: bool,
}

/// A controller that is started again whenever it has ended.
pub struct Process {
    number: u8,
    surroundings: Arc<Surroundings>,
    peer: Mutex<Arc<Peer>>,
    /// Writes of the incarnations that have ended.
    written: AtomicU64,
}

impl Process {
    /// Controller `number`.
    pub fn new(number: u8, surroundings: Arc<Surroundings>) -> Arc<Self> {
        let peer = Mutex::new(peer(&surroundings, number, 0));
        Arc::new(Self { number, surroundings, peer, written: AtomicU64::new(0) })
    }

    /// The network of its present incarnation.
    pub fn peer(&self) -> Arc<Peer> {
        self.peer.lock().clone()
    }

    /// Writes that all of its incarnations have sent.
    pub fn writes(&self) -> u64 {
        self.written.load(Ordering::Relaxed) + self.peer().writes()
    }

    /// Runs one incarnation after another.
    pub async fn run(self: Arc<Self>) {
        for incarnation in 1_u32.. {
            let peer = self.peer();
            let stop = CancellationToken::new();
            let (controller, stopped) = (self.controller(&peer), stop.clone());
            let mut running = tokio::spawn(async move { controller.run(stopped).await });
            tokio::select! {
                biased;
                // A process that has ended by itself is as gone as one that was killed.
                _ = &mut running => {}
                () = peer.died() => {}
            }
            peer.kill();
            stop.cancel();
            running.abort();
            tokio::time::sleep(AGAIN).await;
            self.written.fetch_add(peer.writes(), Ordering::Relaxed);
            *self.peer.lock() = self::peer(&self.surroundings, self.number, incarnation);
        }
    }

    fn controller(&self, peer: &Arc<Peer>) -> Controller {
        let s = &self.surroundings;
        let mut config = Config::new([1; 32], [2; 32]);
        config.leader_election = s.elected.then(|| LeaderElection {
            namespace: "opensandbox-system".to_owned(),
            name: LeaderElection::LEASE_NAME.to_owned(),
            identity: peer.name.clone(),
            duration: Duration::from_secs(15),
        });
        Controller::new(Gate::client(&s.api, peer.clone()), config)
            .with_daemons(Line::new(s.guests.clone(), peer.clone()))
            .with_clock(s.clock.clone())
            .with_ids(s.ids.clone())
    }
}

fn peer(surroundings: &Surroundings, number: u8, incarnation: u32) -> Arc<Peer> {
    let name = format!("controller-{number}-{incarnation}");
    let rng = chance(surroundings.seed, &name);
    Peer::new(name, rng)
}
