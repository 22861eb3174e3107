//! What happens: what users do and what goes wrong, each at its time.

use std::fmt;

use crate::network::WriteFault;

/// A pool of a story.
pub type PoolNumber = u8;
/// A BatchSandbox of a story.
pub type BatchNumber = u16;

/// bufferMin, bufferMax, poolMin, poolMax.
pub type Capacity = [i32; 4];

/// One thing that happens.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the words of an act name its fields")]
pub enum Act {
    /// A user makes a pool.
    CreatePool { pool: PoolNumber, capacity: Capacity, daemon: Daemon },
    /// A user changes a pool's size.
    Resize { pool: PoolNumber, capacity: Capacity },
    /// A user sets how fast a pool is replaced.
    Pace { pool: PoolNumber, at_once: u8 },
    /// A user changes a pool's template.
    EditTemplate { pool: PoolNumber, image: u8 },
    /// A user deletes a pool.
    DeletePool { pool: PoolNumber },
    /// A user makes a BatchSandbox.
    CreateBatch { batch: BatchNumber, pool: Option<PoolNumber>, replicas: i32, expires: Option<u32>, work: Work },
    /// A user changes the number of replicas.
    Scale { batch: BatchNumber, replicas: i32 },
    /// A user sets the expiry, seconds from now.
    Expire { batch: BatchNumber, seconds: u32 },
    /// A user asks for one pod back, by the annotation of older clients.
    Release { batch: BatchNumber },
    /// A user deletes a BatchSandbox.
    DeleteBatch { batch: BatchNumber },
    /// A user deletes the n-th pod by name.
    DeletePod { nth: u8 },
    /// A user wants the n-th pod replaced.
    EvictPod { nth: u8 },
    /// The n-th pod ends in failure.
    FailPod { nth: u8 },
    /// The containers of the n-th pod restart, and its daemons forget everything.
    RestartPod { nth: u8 },
    /// The next so many pods never become ready.
    Barren { pods: u8 },
    /// The node is not reached for so many seconds.
    NodeLost { seconds: u32 },
    /// The daemons of the n-th pod do not answer for so many milliseconds.
    Hang { nth: u8, millis: u32 },
    /// The daemons of the n-th pod refuse the next claim.
    Refuse { nth: u8 },
    /// A controller's write, after `skip` others, meets a fault.
    Write { controller: u8, skip: u32, fault: WriteFault },
    /// A controller ends, to be started again a second later.
    Kill { controller: u8 },
    /// A controller stops for so many milliseconds.
    Pause { controller: u8, millis: u32 },
    /// A controller's watches of a resource are held back so many milliseconds.
    Stale { controller: u8, resource: &'static str, millis: u32 },
    /// A controller's watches are cut.
    Cut { controller: u8 },
    /// A controller's watches end with 410.
    Gone { controller: u8 },
    /// The wall clock steps.
    Clock { seconds: i64 },
}

/// Which daemon takes a pool's claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Daemon {
    /// execd.
    Execd,
    /// task-executor alone.
    TaskExecutor,
    /// None: pods are marked by label.
    None,
}

/// What a BatchSandbox is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Nothing of its own.
    Idle,
    /// An entrypoint that runs on.
    Entrypoint,
    /// An entrypoint that fails.
    Failing,
    /// Tasks; pods are kept when they end.
    Tasks,
    /// Tasks; pods are given back when they end.
    TasksThenRelease,
}

/// One act at its time.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Milliseconds since the begin.
    pub at: u32,
    /// What.
    pub act: Act,
}

/// A story.
#[derive(Debug, Clone, PartialEq)]
pub struct Story {
    /// Seed of everything the steps leave open: latencies, names, how fast pods start.
    pub seed: u64,
    /// How many controllers run.
    pub controllers: u8,
    /// The steps, by time.
    pub steps: Vec<Step>,
}

/// Until when steps happen, ms.
const LENGTH: u32 = 60_000;

impl Story {
    /// The story of a seed.
    pub fn of(seed: u64) -> Self {
        let (mut story, mut rng, pools, batches) = Self::users(seed);
        let controllers = story.controllers;
        // Some stories are calm, most are not.
        let troubles = if rng.u8(..5) == 0 { 0 } else { rng.u32(1..=14) };
        for _ in 0..troubles {
            let at = if rng.bool() { rng.u32(..6_000) } else { rng.u32(..LENGTH) };
            let act = trouble(&mut rng, pools, batches, controllers);
            story.steps.push(Step { at, act });
        }
        story.steps.sort_by_key(|step| step.at);
        story
    }

    /// The same users, and nothing that goes wrong.
    pub fn calm(seed: u64) -> Self {
        let (mut story, ..) = Self::users(seed);
        story.controllers = 1;
        story.steps.sort_by_key(|step| step.at);
        story
    }

    /// The same, with one more step.
    #[must_use]
    pub fn with(&self, step: Step) -> Self {
        let mut story = self.clone();
        story.steps.push(step);
        story.steps.sort_by_key(|step| step.at);
        story
    }

    fn users(seed: u64) -> (Self, fastrand::Rng, u8, u16) {
        let mut rng = crate::surroundings::chance(seed, "story");
        let controllers = if rng.u8(..3) == 0 { 2 } else { 1 };
        let pools = rng.u8(1..=2);
        let mut steps = Vec::new();
        for pool in 0..pools {
            let daemon = match rng.u8(..6) {
                0 => Daemon::TaskExecutor,
                1 => Daemon::None,
                _ => Daemon::Execd,
            };
            let at = rng.u32(..200);
            steps.push(Step { at, act: Act::CreatePool { pool, capacity: capacity(&mut rng), daemon } });
        }
        let batches = rng.u16(1..=6);
        for batch in 0..batches {
            // Before, while and after the pool warms up.
            let at = if rng.bool() { rng.u32(..3_000) } else { rng.u32(..LENGTH / 2) };
            let pool = (rng.u8(..8) != 0).then(|| rng.u8(..pools));
            let replicas = if rng.bool() { 1 } else { rng.i32(0..=4) };
            let work = match rng.u8(..8) {
                0 => Work::Tasks,
                1 => Work::TasksThenRelease,
                2 => Work::Failing,
                3 | 4 => Work::Entrypoint,
                _ => Work::Idle,
            };
            let expires = (rng.u8(..4) == 0).then(|| rng.u32(1..90));
            steps.push(Step { at, act: Act::CreateBatch { batch, pool, replicas, expires, work } });
        }
        (Self { seed, controllers, steps }, rng, pools, batches)
    }
}

fn capacity(rng: &mut fastrand::Rng) -> Capacity {
    let buffer_min = rng.i32(0..=3);
    let buffer_max = buffer_min + rng.i32(0..=3);
    let pool_min = rng.i32(0..=4);
    let pool_max = pool_min + rng.i32(0..=6);
    [buffer_min, buffer_max, pool_min, pool_max]
}

fn trouble(rng: &mut fastrand::Rng, pools: u8, batches: u16, controllers: u8) -> Act {
    let (pool, batch, nth) = (rng.u8(..pools), rng.u16(..batches), rng.u8(..));
    let controller = rng.u8(..controllers);
    match rng.u8(..33) {
        0 => Act::Resize { pool, capacity: capacity(rng) },
        // To nothing, and to numbers that contradict each other.
        30 => Act::Resize { pool, capacity: [[0, 0, 0, 0], [3, 1, 4, 2]][rng.usize(..2)] },
        31 => Act::Pace { pool, at_once: rng.u8(..4) },
        1 | 32 => Act::EditTemplate { pool, image: rng.u8(..3) },
        2 => Act::DeletePool { pool },
        3 | 4 => Act::Scale { batch, replicas: rng.i32(0..=4) },
        5 => Act::Expire { batch, seconds: rng.u32(..60) },
        6..=8 => Act::DeleteBatch { batch },
        9 => Act::DeletePod { nth },
        10 => Act::EvictPod { nth },
        11 => Act::FailPod { nth },
        12 => Act::RestartPod { nth },
        13 => Act::Barren { pods: rng.u8(1..4) },
        14 => Act::NodeLost { seconds: rng.u32(1..60) },
        15 => Act::Hang { nth, millis: rng.u32(..20_000) },
        16 => Act::Refuse { nth },
        17 => Act::Kill { controller },
        18 => Act::Pause { controller, millis: rng.u32(..40_000) },
        19 | 20 => {
            let resource = ["/pods", "/pools", "/batchsandboxes"][rng.usize(..3)];
            Act::Stale { controller, resource, millis: rng.u32(..10_000) }
        }
        21 => Act::Cut { controller },
        22 => Act::Gone { controller },
        23 => Act::Clock { seconds: rng.i64(-120..120) },
        24 => Act::Release { batch },
        _ => {
            let fault = match rng.u8(..9) {
                0 | 1 => WriteFault::CrashBefore,
                2 | 3 => WriteFault::CrashAfter,
                4 => WriteFault::Lost,
                5 => WriteFault::Silent,
                6 => WriteFault::Late(rng.u32(..30_000)),
                _ => WriteFault::Refused([409, 410, 429, 500][rng.usize(..4)]),
            };
            Act::Write { controller, skip: rng.u32(..12), fault }
        }
    }
}

impl Act {
    /// Whether it is a fault, and nothing that a user does.
    pub fn is_fault(&self) -> bool {
        !matches!(
            self,
            Self::CreatePool { .. }
                | Self::Resize { .. }
                | Self::Pace { .. }
                | Self::EditTemplate { .. }
                | Self::DeletePool { .. }
                | Self::CreateBatch { .. }
                | Self::Scale { .. }
                | Self::Expire { .. }
                | Self::Release { .. }
                | Self::DeleteBatch { .. }
        )
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, {} controller(s)", self.seed, self.controllers)?;
        for step in &self.steps {
            writeln!(f, "{:>8.3} s  {:?}", f64::from(step.at) / 1000.0, step.act)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_tells_one_story() {
        assert_eq!(Story::of(7), Story::of(7));
        assert_ne!(Story::of(7).steps, Story::of(8).steps);
    }
}
