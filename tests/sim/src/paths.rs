//! The same wishes by two ways: set at once, or reached by wandering. What comes to rest is the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use api_types::crd::GrantState;
use kube::ResourceExt as _;

use crate::history::Change;
use crate::invariants::View;
use crate::story::{Act, Capacity, Daemon, Step, Story, Work};
use crate::surroundings::chance;

/// When wandering ends, ms.
const WANDERING: u32 = 40_000;

/// Two stories that end with the same wishes.
pub fn pair(seed: u64) -> (Story, Story) {
    let mut rng = chance(seed, "paths");
    let pools: u8 = rng.u8(1..=2);
    let batches: u16 = rng.u16(1..=4);
    let capacity = |rng: &mut fastrand::Rng| -> Capacity {
        // Roomy, so that nobody has to wait for another: who came first would be part of the answer.
        let least = rng.i32(0..=3);
        [least, least + rng.i32(0..=2), rng.i32(0..=4), 24 + rng.i32(0..=4)]
    };
    let wanted: Vec<_> = (0..pools).map(|pool| (pool, capacity(&mut rng), rng.u8(..3))).collect();
    let replicas: Vec<_> = (0..batches).map(|batch| (batch, rng.i32(0..=4))).collect();
    let step = |at, act| Step { at, act };
    let create = |at, pool, capacity| step(at, Act::CreatePool { pool, capacity, daemon: Daemon::Execd });
    let batch = |at, batch: u16, replicas| {
        let pool = Some(u8::try_from(batch).unwrap_or(0) % pools);
        step(at, Act::CreateBatch { batch, pool, replicas, expires: None, work: Work::Idle })
    };
    let mut straight = Vec::new();
    let mut wandering = Vec::new();
    for (pool, end, image) in &wanted {
        straight.push(create(100, *pool, *end));
        straight.push(step(200, Act::EditTemplate { pool: *pool, image: *image }));
        wandering.push(create(100, *pool, capacity(&mut rng)));
        for _ in 0..rng.u8(..6) {
            let at = rng.u32(300..WANDERING);
            let act = match rng.u8(..4) {
                0 => Act::EditTemplate { pool: *pool, image: rng.u8(..3) },
                1 => Act::Pace { pool: *pool, at_once: rng.u8(..4) },
                _ => Act::Resize { pool: *pool, capacity: capacity(&mut rng) },
            };
            wandering.push(step(at, act));
        }
        wandering.push(step(WANDERING, Act::Pace { pool: *pool, at_once: 0 }));
        wandering.push(step(WANDERING + 100, Act::Resize { pool: *pool, capacity: *end }));
        wandering.push(step(WANDERING + 200, Act::EditTemplate { pool: *pool, image: *image }));
    }
    for (number, end) in &replicas {
        let at = 1_000 + 1_100 * u32::from(*number);
        straight.push(batch(at, *number, *end));
        wandering.push(batch(at, *number, rng.i32(0..=4)));
        for _ in 0..rng.u8(..5) {
            let replicas = rng.i32(0..=4);
            wandering.push(step(rng.u32(at + 500..WANDERING), Act::Scale { batch: *number, replicas }));
        }
        wandering.push(step(WANDERING + 300, Act::Scale { batch: *number, replicas: *end }));
    }
    let story = |mut steps: Vec<Step>| {
        steps.sort_by_key(|step| step.at);
        Story { seed, controllers: 1, steps }
    };
    (story(straight), story(wandering))
}

/// What matters of a world at rest: no names, no times, and of a buffer only that it is in its band.
pub fn shape(history: &[Arc<Change>]) -> BTreeMap<String, String> {
    let mut view = View::default();
    history.iter().for_each(|change| view.apply(change));
    let mut shape = BTreeMap::new();
    for pool in view.pools.values() {
        let Some(status) = &pool.status else { continue };
        let kinds: Vec<_> = status.conditions.iter().map(|c| (&c.kind, &c.reason)).collect();
        let what = format!("revision {} allocated {} conditions {kinds:?}", status.revision, status.allocated);
        shape.insert(format!("pool {}", pool.name_any()), what);
    }
    for batch in view.batches.values() {
        let Some(status) = &batch.status else { continue };
        let held = status.grants.iter().filter(|g| g.state == GrantState::Claimed).count();
        let kinds: Vec<_> = status.conditions.iter().map(|c| (&c.kind, &c.reason)).collect();
        let what = format!("phase {:?} holds {held} ready {} conditions {kinds:?}", status.phase, status.ready);
        shape.insert(format!("sandbox {}", batch.name_any()), what);
    }
    shape
}
