//! Time and names that follow from the seed.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio::time::Instant;

/// Every story begins here: 2026-01-01T00:00:00Z.
const BEGIN: i64 = 1_767_225_600;

/// Wall time: tokio's paused time since the begin, and the steps that a story makes.
pub struct SimClock {
    begin: Instant,
    stepped: AtomicI64,
}

impl SimClock {
    /// A clock that shows the begin now.
    pub fn new() -> Self {
        Self { begin: Instant::now(), stepped: AtomicI64::new(0) }
    }

    /// Sets the wall clock forth or back.
    pub fn step(&self, seconds: i64) {
        self.stepped.fetch_add(seconds, Ordering::Relaxed);
    }

    /// The wall time.
    pub fn wall(&self) -> Timestamp {
        let elapsed = SignedDuration::try_from(self.begin.elapsed()).unwrap_or_default();
        let begin = Timestamp::from_second(BEGIN).unwrap_or_default();
        begin + elapsed + SignedDuration::from_secs(self.stepped.load(Ordering::Relaxed))
    }

    /// Time since the begin, steps apart.
    pub fn elapsed(&self) -> std::time::Duration {
        self.begin.elapsed()
    }
}

impl Default for SimClock {
    fn default() -> Self {
        Self::new()
    }
}

impl local_api::env::Clock for SimClock {
    fn now(&self) -> Timestamp {
        self.wall()
    }
}

impl controller::Clock for SimClock {
    fn now(&self) -> Timestamp {
        self.wall()
    }
}

/// Names from a generator of their own.
pub struct SimIds(Mutex<fastrand::Rng>);

impl SimIds {
    /// The names of a seed.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(fastrand::Rng::with_seed(seed)))
    }

    fn word(&self, letters: usize) -> String {
        let mut rng = self.0.lock();
        (0..letters)
            .map(|_| rng.choice(b"bcdfghjklmnpqrstvwxz2456789".iter()).map_or('b', |b| char::from(*b)))
            .collect()
    }
}

impl local_api::env::Ids for SimIds {
    fn uid(&self) -> String {
        format!("{:032x}", self.0.lock().u128(..))
    }

    fn suffix(&self) -> String {
        self.word(5)
    }
}

impl controller::Ids for SimIds {
    fn suffix(&self) -> String {
        self.word(8)
    }
}

/// A number that follows from the seed and what it is for, whatever else the story does.
pub fn chance(seed: u64, what: &str) -> fastrand::Rng {
    // FNV-1a: short, stable over releases, good enough to tell names apart.
    let hash = what.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    fastrand::Rng::with_seed(seed ^ hash)
}
