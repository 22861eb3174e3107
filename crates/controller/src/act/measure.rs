//! Where the time of a create went, told once for each BatchSandbox.

use std::time::Duration;

use api_types::crd::{BatchSandbox, GrantState};
use jiff::Timestamp;

use crate::metrics::Metrics;
use crate::world::BatchSnapshot;

/// A status was written in so much time: were these the first grants, or the first readiness?
pub(super) fn status(metrics: &Metrics, s: &BatchSnapshot, written: &BatchSandbox, took: Duration) {
    let (Some(seen), Some(new)) = (s.times.seen, &written.status) else { return };
    let old = s.batch.status.as_ref().map_or(&[][..], |s| &s.grants);
    let now = s.now.checked_add(jiff::SignedDuration::try_from(took).unwrap_or_default()).unwrap_or(s.now);
    // Replacements and what was taken over have other beginnings than the sandbox's.
    let count = i64::try_from(new.grants.len()).unwrap_or(i64::MAX);
    let first = count > 0 && new.grants.iter().all(|g| g.granted_at.is_some() && g.epoch <= count);
    if !first {
        return;
    }
    if old.is_empty() {
        // The last pod of a batch is the one that it waited for.
        let ready = new.grants.iter().filter_map(|g| s.times.ready.get(g.pod_uid.as_str())).max();
        let created = new.grants.iter().filter_map(|g| s.pods.get(g.pod_uid.as_str())).map(|p| p.created).max();
        let begun = created.map_or(seen, |created| created.max(seen));
        let pod = ready.map_or(Duration::ZERO, |ready| between(begun, *ready));
        let whole = between(seen, s.now);
        metrics.waited("queue", whole.saturating_sub(pod));
        metrics.waited("pod", pod.min(whole));
        metrics.waited("write", took);
        metrics.reached("granted", between(seen, now));
    } else if old.iter().all(|g| g.state == GrantState::Granted)
        && new.grants.iter().all(|g| g.state == GrantState::Claimed)
    {
        let claimed = new.grants.iter().filter_map(|g| g.claimed_at.as_ref()).map(|t| t.0).max();
        if let Some(claimed) = claimed {
            metrics.reached("claimed", between(seen, claimed));
        }
        metrics.waited("write", took);
        metrics.reached("ready", between(seen, now));
    }
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}
