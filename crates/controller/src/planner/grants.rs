//! Who gets which idle pod.
//!
//! Strictly in the order of creation, and each request whole or not at all, so that a batch costs
//! one write whatever its size and two large batches never hold halves of each other's pods. A
//! request that cannot fit the pool even if everybody else left is passed over: it is told so.

use crate::guard::{Guard, stands};

/// One request for pods of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<B> {
    /// Who asks.
    pub batch: B,
    /// Pods wanted now.
    pub need: usize,
    /// Pods held already.
    pub held: usize,
}

/// Pods for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment<B, P> {
    /// Who gets them.
    pub batch: B,
    /// What it gets: exactly what it needs.
    pub pods: Vec<P>,
}

/// Assigns idle pods to requests. `requests` come oldest first, `idle` longest ready first.
pub fn assign<B, P>(
    requests: impl IntoIterator<Item = Request<B>>,
    idle: impl IntoIterator<Item = P>,
    idle_count: usize,
    pool_max: usize,
) -> Vec<Assignment<B, P>> {
    let mut left = idle_count;
    let mut idle = idle.into_iter();
    let mut assignments = Vec::new();
    for request in requests {
        if request.need == 0 || !fits(&request, pool_max) {
            continue;
        }
        if request.need > left {
            break;
        }
        let pods: Vec<P> = idle.by_ref().take(request.need).collect();
        left -= request.need;
        assignments.push(Assignment { batch: request.batch, pods });
    }
    assignments
}

/// Whether the pool could ever hold the request.
pub fn fits<B>(request: &Request<B>, pool_max: usize) -> bool {
    request.need + request.held <= pool_max || !stands(Guard::NeverFits)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn requests(needs: &[usize]) -> Vec<Request<usize>> {
        needs.iter().enumerate().map(|(batch, need)| Request { batch, need: *need, held: 0 }).collect()
    }

    #[test]
    fn the_oldest_is_served_first_and_whole() {
        let got = assign(requests(&[2, 3, 1]), 0..4, 4, 10);
        assert_eq!(got, vec![Assignment { batch: 0, pods: vec![0, 1] }], "the third does not overtake the second");
    }

    #[test]
    fn one_that_can_never_fit_blocks_nobody() {
        let got = assign(requests(&[11, 1]), 0..4, 4, 10);
        assert_eq!(got, vec![Assignment { batch: 1, pods: vec![0] }]);
    }

    proptest! {
        #[test]
        fn no_pod_is_given_twice_and_none_is_jumped(needs in prop::collection::vec(0usize..6, 0..20), idle in 0usize..40, max in 1usize..40) {
            let got = assign(requests(&needs), 0..idle, idle, max);
            let mut seen = HashSet::new();
            for a in &got {
                prop_assert_eq!(a.pods.len(), needs[a.batch]);
                for pod in &a.pods {
                    prop_assert!(seen.insert(*pod), "pod {} given twice", pod);
                }
            }
            // The longest-ready pods are the ones given.
            prop_assert!(seen.iter().all(|p| *p < seen.len()));
            // Whoever fits and was not served leaves nobody younger served.
            let served: HashSet<_> = got.iter().map(|a| a.batch).collect();
            let first_unserved = needs.iter().enumerate().find(|(i, n)| **n > 0 && **n <= max && !served.contains(i));
            if let Some((unserved, need)) = first_unserved {
                prop_assert!(served.iter().all(|s| *s < unserved));
                prop_assert!(idle - seen.len() < *need, "it could have been served");
            }
        }
    }
}
