//! How many pods a pool makes or gives up.
//!
//! Nothing happens while the buffer of free pods is inside `bufferMin..=bufferMax`; once it has
//! left the band it is brought to the band's middle, paced by `scaleStrategy.maxUnavailable`.
//! `poolMax` bounds every pod that exists, terminating ones and ones being created included.

use api_types::crd::CapacitySpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::guard::{Guard, stands};

/// Percentage of a size that may be unready at once when nothing is said.
const DEFAULT_MAX_UNAVAILABLE_PERCENT: usize = 25;

/// The pods of a pool, each counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Free and ready: can be granted.
    pub ready: usize,
    /// Free and not ready yet.
    pub starting: usize,
    /// Reserved or granted.
    pub held: usize,
    /// Alive and to be deleted: dirty, ended, evicted.
    pub spent: usize,
    /// On their way out.
    pub terminating: usize,
    /// Asked of the API and not answered yet.
    pub creating: usize,
    /// Those of the free ones that are of an older revision.
    pub outdated: usize,
}

impl Counts {
    /// Everything that exists or may.
    pub fn existing(&self) -> usize {
        self.ready + self.starting + self.held + self.spent + self.terminating + self.creating
    }

    /// What counts towards the pool's size: all but what goes.
    pub fn schedulable(&self) -> usize {
        self.ready + self.starting + self.held + self.creating
    }

    /// What nobody holds.
    pub fn free(&self) -> usize {
        self.ready + self.starting + self.creating
    }
}

/// The four numbers of a pool, made to agree with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Fewest free pods.
    pub buffer_min: usize,
    /// Most free pods.
    pub buffer_max: usize,
    /// Fewest pods.
    pub pool_min: usize,
    /// Most pods.
    pub pool_max: usize,
}

impl Capacity {
    /// Reads the spec. Where two numbers contradict, the upper bound wins, and the text says so.
    pub fn of(spec: &CapacitySpec) -> (Self, Option<String>) {
        let number = |n: i32| usize::try_from(n).unwrap_or(0);
        let (buffer_min, buffer_max) = (number(spec.buffer_min), number(spec.buffer_max));
        let (pool_min, pool_max) = (number(spec.pool_min), number(spec.pool_max));
        let mut complaints = Vec::new();
        if buffer_min > buffer_max {
            complaints.push(format!(
                "capacitySpec.bufferMin {buffer_min} is above bufferMax {buffer_max}; {buffer_max} is used for both"
            ));
        }
        if pool_min > pool_max {
            complaints.push(format!(
                "capacitySpec.poolMin {pool_min} is above poolMax {pool_max}; {pool_max} is used for both"
            ));
        }
        let capacity =
            Self { buffer_min: buffer_min.min(buffer_max), buffer_max, pool_min: pool_min.min(pool_max), pool_max };
        (capacity, (!complaints.is_empty()).then(|| complaints.join("; ")))
    }

    fn middle(&self) -> usize {
        usize::midpoint(self.buffer_min, self.buffer_max)
    }
}

/// What to do about a pool's size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizing {
    /// Pods to create now.
    pub create: usize,
    /// Free pods to delete now.
    pub shrink: usize,
    /// Pods the pool heads for.
    pub desired: usize,
    /// Whether the buffer is being filled towards its middle. Handed back in at the next call.
    pub filling: bool,
    /// Whether more is wanted than `poolMax` allows.
    pub at_capacity: bool,
}

/// Decides. `demand` is how many pods are waited for by requests that could fit.
pub fn size(
    capacity: &Capacity,
    max_unavailable: Option<&IntOrString>,
    counts: &Counts,
    demand: usize,
    filling: bool,
) -> Sizing {
    let buffer = counts.free().saturating_sub(demand);
    let filling = if buffer < capacity.buffer_min {
        true
    } else if buffer >= capacity.middle() {
        false
    } else {
        // What is replaced is not saved: a rolling update keeps to the middle.
        filling || counts.outdated > 0
    };
    let wanted_buffer = if filling || buffer > capacity.buffer_max { capacity.middle() } else { buffer };
    let uncapped = (counts.held + demand + wanted_buffer).max(capacity.pool_min);
    let desired = uncapped.min(capacity.pool_max);
    let schedulable = counts.schedulable();
    let missing = desired.saturating_sub(schedulable);
    let uncounted = if stands(Guard::CreatingCounts) { 0 } else { counts.creating };
    let room = capacity.pool_max.saturating_sub(counts.existing() - uncounted);
    let room = if stands(Guard::PoolMax) { room } else { usize::MAX };
    let limit = pace(max_unavailable, desired).saturating_sub(counts.starting + counts.creating);
    Sizing {
        create: missing.min(room).min(limit),
        shrink: schedulable.saturating_sub(desired).min(counts.ready + counts.starting),
        desired,
        // The last ones replaced are made up for too, when no old one is left to tell of it.
        filling: filling || counts.outdated > 0,
        at_capacity: uncapped > capacity.pool_max,
    }
}

/// How many ready free pods of an older revision may go now: no more than `maxUnavailable` of the pool, less what it
/// lacks already. Pods that sandboxes hold are not counted against it.
pub fn replaceable(max_unavailable: Option<&IntOrString>, counts: &Counts, desired: usize) -> usize {
    let lacking = desired.saturating_sub(counts.held + counts.ready);
    pace(max_unavailable, counts.schedulable()).saturating_sub(lacking)
}

/// How many of `size` pods may be unready at once: at least one.
pub fn pace(max_unavailable: Option<&IntOrString>, size: usize) -> usize {
    let percent = |p: usize| (size * p).div_ceil(100);
    let number = match max_unavailable {
        None => Some(percent(DEFAULT_MAX_UNAVAILABLE_PERCENT)),
        Some(IntOrString::Int(n)) => usize::try_from(*n).ok(),
        Some(IntOrString::String(text)) => match text.strip_suffix('%') {
            Some(p) => p.trim().parse::<u32>().ok().map(|p| percent(p as usize)),
            None => text.trim().parse().ok(),
        },
    };
    number.unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn capacity(buffer_min: usize, buffer_max: usize, pool_min: usize, pool_max: usize) -> Capacity {
        Capacity { buffer_min, buffer_max, pool_min, pool_max }
    }

    #[test]
    fn published_examples_hold() {
        let none = Counts::default();
        let text = |t: &str| Some(IntOrString::String(t.to_owned()));
        let case = |c: Capacity, pacing: Option<IntOrString>, counts: Counts, demand| {
            size(&c, pacing.as_ref(), &counts, demand, false)
        };
        assert_eq!(case(capacity(10, 10, 0, 10), None, none, 0).create, 3, "cold start");
        assert_eq!(case(capacity(10, 10, 0, 10), text("20%"), none, 0).create, 2, "cold start 20%");
        assert_eq!(case(capacity(5, 5, 0, 5), Some(IntOrString::Int(1)), none, 0).create, 1, "cold start 1");
        assert_eq!(case(capacity(2, 5, 0, 10), None, none, 0).desired, 3, "midpoint");
        let inside = Counts { ready: 2, held: 3, ..none };
        let rest = case(capacity(1, 3, 0, 10), None, inside, 0);
        assert_eq!((rest.create, rest.shrink), (0, 0), "inside the band");
        let full = Counts { held: 4, ..none };
        let capped = case(capacity(4, 4, 0, 4), None, full, 2);
        assert_eq!((capped.create, capped.at_capacity), (0, true), "capped");
        let idle = Counts { ready: 5, ..none };
        assert_eq!(case(capacity(1, 2, 2, 10), None, idle, 0).shrink, 3, "shrink");
        assert_eq!(case(capacity(0, 0, 1, 1), None, none, 0).create, 1, "floor");
        assert_eq!(case(capacity(0, 0, 0, 20), None, none, 10).create, 3, "demand, paced");
    }

    #[test]
    fn the_seed_rests_in_the_middle() {
        assert_eq!(settle(capacity(10, 50, 10, 200), 0, Counts::default()).ready, 30);
    }

    #[test]
    fn contradictions_are_told_and_harmless() {
        let spec = CapacitySpec { buffer_max: 2, buffer_min: 5, pool_max: 1, pool_min: 3 };
        let (capacity, complaint) = Capacity::of(&spec);
        assert_eq!(capacity, Capacity { buffer_min: 2, buffer_max: 2, pool_min: 1, pool_max: 1 });
        assert!(complaint.unwrap().contains("poolMin 3"));
    }

    /// Runs the planner until it wants nothing, making every pod ready after each step.
    fn settle(capacity: Capacity, held: usize, mut counts: Counts) -> Counts {
        counts.held = held;
        let mut filling = false;
        for _ in 0..2_000 {
            let plan = size(&capacity, None, &counts, 0, filling);
            filling = plan.filling;
            if plan.create == 0 && plan.shrink == 0 {
                return counts;
            }
            assert!(plan.create == 0 || counts.existing() + plan.create <= capacity.pool_max);
            counts.ready = counts.ready + counts.starting + plan.create - plan.shrink;
            counts.starting = 0;
        }
        panic!("never at rest: {counts:?}");
    }

    /// Rolls a pool of `ready` old pods to its end; the fewest ready ones on the way, and the steps it took.
    fn rolled(capacity: Capacity, pacing: Option<&IntOrString>, held: usize, ready: usize) -> (usize, usize) {
        let (mut old, mut new, mut filling, mut least) = (ready, 0, false, ready);
        for step in 0..2_000 {
            let counts = Counts { ready: old + new, held, outdated: old, ..Counts::default() };
            let plan = size(&capacity, None, &counts, 0, filling);
            filling = plan.filling;
            let gone = replaceable(pacing, &counts, plan.desired).min(old);
            let surplus = plan.shrink.saturating_sub(gone);
            if gone == 0 && plan.create == 0 && surplus == 0 {
                assert_eq!(old, 0, "it is stuck: {counts:?} {plan:?}");
                assert!(new >= capacity.middle().min(ready) || held + new >= capacity.pool_max, "{counts:?} {plan:?}");
                return (least, step);
            }
            old -= gone;
            let surplus_old = surplus.min(old);
            old -= surplus_old;
            new -= surplus - surplus_old;
            least = least.min(old + new);
            // What was created now is ready at the next look; what was deleted is gone.
            new += plan.create;
        }
        panic!("never at rest");
    }

    #[test]
    fn a_rolling_update_keeps_most_of_the_buffer() {
        let seed = capacity(10, 50, 10, 200);
        assert_eq!(rolled(seed, None, 0, 30).0, 22, "25% of 30, rounded up, at once");
        assert_eq!(rolled(seed, Some(&IntOrString::Int(1)), 0, 30).0, 29);
        assert_eq!(rolled(seed, Some(&IntOrString::String("100%".into())), 0, 30).0, 0);
        assert_eq!(rolled(capacity(4, 4, 0, 4), None, 0, 4).0, 3, "a full pool has to delete before it creates");
    }

    proptest! {
        #[test]
        fn creation_never_takes_a_pool_above_its_max(
            (bmin, bmax, pmin, pmax) in (0usize..20, 0usize..20, 0usize..20, 0usize..40),
            ready in 0usize..20, starting in 0usize..20, held in 0usize..20, spent in 0usize..5,
            terminating in 0usize..10, creating in 0usize..10, demand in 0usize..60, filling: bool,
        ) {
            let capacity = capacity(bmin.min(bmax), bmax, pmin.min(pmax), pmax);
            let counts = Counts { ready, starting, held, spent, terminating, creating, outdated: 0 };
            let plan = size(&capacity, None, &counts, demand, filling);
            prop_assert!(plan.create == 0 || counts.existing() + plan.create <= pmax);
            prop_assert!(plan.create == 0 || plan.shrink == 0, "never both at once");
            prop_assert!(plan.shrink <= ready + starting, "only free pods go");
        }

        #[test]
        fn a_rolling_update_ends(
            (bmin, bmax, pmin, pmax) in (0usize..20, 0usize..20, 0usize..20, 0usize..60),
            held in 0usize..20, ready in 0usize..40, at_once in 0i32..9,
        ) {
            let capacity = capacity(bmin.min(bmax), bmax, pmin.min(pmax), pmax);
            let ready = ready.min(pmax.saturating_sub(held));
            rolled(capacity, Some(&IntOrString::Int(at_once)), held, ready);
        }

        #[test]
        fn at_rest_the_buffer_is_in_its_band(
            (bmin, bmax, pmin, pmax) in (0usize..20, 0usize..20, 0usize..20, 0usize..60),
            held in 0usize..20, ready in 0usize..60,
        ) {
            let capacity = capacity(bmin.min(bmax), bmax, pmin.min(pmax), pmax);
            let rest = settle(capacity, held, Counts { ready, ..Counts::default() });
            prop_assert!(rest.ready <= bmax.max(capacity.pool_min), "{rest:?}");
            prop_assert!(rest.ready >= capacity.buffer_min || rest.existing() >= pmax, "{rest:?}");
        }
    }
}
