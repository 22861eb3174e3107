//! What the node remembers of a pod beside its object and its shim's state: back-off, probes, why something waits.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::shim::proto::PodState;

/// First pause before a restart; each further one is twice as long.
const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(10);
/// Longest pause before a restart, and before an image is tried again.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_secs(300);
/// A container that ran so long starts with a clean slate.
const FORGIVEN_AFTER: SignedDuration = SignedDuration::from_secs(600);

/// Back-off of one container, as the kubelet does it: the first restart at once, then 10 s, 20 s, up to 5 min.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backoff {
    pause: Option<SignedDuration>,
}

impl Backoff {
    /// When a container that ran from `started` to `finished` may start again.
    pub fn next_start(&self, started: Timestamp, finished: Timestamp) -> Timestamp {
        match self.pause {
            Some(pause) if finished.duration_since(started) < FORGIVEN_AFTER => finished + pause,
            _ => finished,
        }
    }

    /// Notes a restart of a container whose last run was from `started` to `finished`.
    pub fn restarted(&mut self, started: Timestamp, finished: Timestamp) {
        if finished.duration_since(started) >= FORGIVEN_AFTER {
            self.pause = None;
        }
        self.grow();
    }

    /// Notes a failure at `now` to get so far as a start; returns when to try again.
    pub fn failed(&mut self, now: Timestamp) -> Timestamp {
        now + self.grow()
    }

    /// The present pause.
    pub fn pause(&self) -> Option<SignedDuration> {
        self.pause
    }

    fn grow(&mut self) -> SignedDuration {
        let next = self.pause.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE));
        self.pause = Some(next);
        next
    }
}

/// Why a container does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Kubernetes' reason.
    pub reason: String,
    /// What to do about it, where there is something.
    pub message: String,
    /// When it is tried again.
    pub until: Timestamp,
}

/// What is remembered of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerMemory {
    /// Restart back-off.
    pub backoff: Backoff,
    /// Back-off of attempts that came to no start.
    pub trouble: Backoff,
    /// Why the last attempt came to no start.
    pub waiting: Option<Waiting>,
    /// Probe verdicts of the run with this id.
    pub probed: String,
    /// The startup probe has succeeded, or there is none.
    pub started: bool,
    /// The readiness probe succeeds, or there is none.
    pub ready: bool,
    /// The run whose postStart hook has not ended.
    pub hooked: Option<String>,
    /// How long a run that a probe wants ended may take to end; the pod's grace period when the probe has none.
    pub unhealthy_grace: Option<Duration>,
    /// A probe wants the run ended, and why.
    pub unhealthy: Option<String>,
    /// Identity of the image.
    pub image_id: String,
    /// Full name of the image.
    pub image: String,
    /// Signal that ends it gently.
    pub stop_signal: Option<i32>,
}

/// What is remembered of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// By container.
    pub containers: BTreeMap<String, ContainerMemory>,
    /// Why the sandbox could not be made.
    pub sandbox: Option<Waiting>,
    /// Back-off of the sandbox.
    pub sandbox_backoff: Backoff,
}

impl Memory {
    /// Whether a postStart hook runs: until it has ended nothing else of the pod is started.
    pub fn hooking(&self) -> bool {
        self.containers.values().any(|memory| memory.hooked.is_some())
    }

    /// The state as the API is told it: a container whose postStart hook runs counts as not started.
    pub fn visible(&self, state: &PodState) -> PodState {
        let mut state = state.clone();
        for (name, memory) in &self.containers {
            if let (Some(hooked), Some(runs)) = (&memory.hooked, state.containers.get_mut(name)) {
                runs.retain(|run| run.id != *hooked || !run.running());
            }
        }
        state
    }

    /// What is remembered of a container.
    pub fn of(&mut self, container: &str) -> &mut ContainerMemory {
        self.containers.entry(container.to_owned()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_immediate_and_later_ones_wait_twice_as_long_each() {
        let mut backoff = Backoff::default();
        let start = Timestamp::UNIX_EPOCH;
        let end = start + SignedDuration::from_secs(1);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            pauses.push(backoff.next_start(start, end).duration_since(end).as_secs());
            backoff.restarted(start, end);
        }
        assert_eq!(pauses, [0, 10, 20, 40, 80, 160, 300, 300]);
        let late = start + FORGIVEN_AFTER;
        assert_eq!(backoff.next_start(start, late), late);
    }
}
