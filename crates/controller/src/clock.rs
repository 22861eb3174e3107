//! Wall time, injectable. Waiting uses tokio's clock, which tests can pause.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// How often the time of day is compared with a clock that nobody sets.
const LOOK: Duration = Duration::from_secs(5);
/// What tells a clock that was set from one that is a little fast.
const STEP: SignedDuration = SignedDuration::from_secs(1);

/// Where the controller reads the time of day.
pub trait Clock: Send + Sync {
    /// The time of day.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// Waits until the time of day was set. Timers run by a clock that nobody sets, and what expires at a time of day would
/// be late by as much as the day was moved forward.
pub(crate) async fn was_set(clock: &dyn Clock) {
    let (day, steady) = (clock.now(), Instant::now());
    loop {
        tokio::time::sleep(LOOK).await;
        let passed = SignedDuration::try_from(steady.elapsed()).unwrap_or(SignedDuration::MAX);
        let off = clock.now().duration_since(day).saturating_sub(passed);
        if off.abs() > STEP {
            return;
        }
    }
}
