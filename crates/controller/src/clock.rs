//! Wall time, injectable. Waiting uses tokio's clock, which tests can pause.

use jiff::Timestamp;

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
