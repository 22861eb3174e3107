//! How often a caller may ask: a bucket a caller, for this replica alone.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use api_types::ErrorCode;
use governor::clock::{Clock as _, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use parking_lot::Mutex;

use crate::error::ApiError;
use crate::keys::Caller;

/// Callers whose buckets are remembered; beyond it all begin anew.
const CALLERS: usize = 10_000;

/// A rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Time in which one more request becomes free.
    pub every: Duration,
    /// Requests at once after a rest.
    pub burst: NonZeroU32,
}

impl Rate {
    /// So many requests a second; a burst that is not given is two seconds' worth.
    pub fn per_second(requests: NonZeroU32, burst: Option<NonZeroU32>) -> Self {
        let burst = burst.unwrap_or(requests.saturating_add(requests.get()));
        Self { every: Duration::from_secs(1) / requests.get(), burst }
    }
}

type Bucket = RateLimiter<NotKeyed, InMemoryState, MonotonicClock, NoOpMiddleware<std::time::Instant>>;

/// The buckets.
#[derive(Default)]
pub struct Rates(Mutex<HashMap<String, (Rate, Arc<Bucket>)>>);

impl Rates {
    /// Takes one request out of the caller's bucket, or says when there will be one. Tenants are one caller each,
    /// whatever key they come with.
    pub fn take(&self, caller: &Caller, general: Option<Rate>) -> Result<(), ApiError> {
        let of_tenant = caller.tenant.as_ref().and_then(|tenant| tenant.rate);
        let Some(rate) = of_tenant.or(general) else { return Ok(()) };
        let name = caller.tenant.as_ref().map_or(&caller.name, |tenant| &tenant.name);
        let bucket = self.bucket(name, rate);
        bucket.check().map_err(|full| {
            let after = full.wait_time_from(MonotonicClock.now());
            let message = format!("{name} may ask {} times at once and once every {:?}", rate.burst, rate.every);
            ApiError::new(ErrorCode::RateLimited, message).retry_after(after)
        })
    }

    fn bucket(&self, name: &str, rate: Rate) -> Arc<Bucket> {
        let mut buckets = self.0.lock();
        // A tenant whose rate was changed begins anew.
        if let Some((_, bucket)) = buckets.get(name).filter(|(known, _)| *known == rate) {
            return bucket.clone();
        }
        if buckets.len() >= CALLERS {
            buckets.clear();
        }
        let quota = Quota::with_period(rate.every).unwrap_or_else(|| Quota::per_second(rate.burst));
        let bucket = Arc::new(RateLimiter::direct_with_clock(quota.allow_burst(rate.burst), MonotonicClock));
        buckets.insert(name.to_owned(), (rate, bucket.clone()));
        bucket
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Scope;

    #[test]
    fn a_bucket_a_caller() {
        let rates = Rates::default();
        let rate = Rate { every: Duration::from_secs(3600), burst: NonZeroU32::MIN.saturating_add(1) };
        let caller = |name: &str| Caller { name: name.to_owned(), scope: Scope::Run, tenant: None };
        let (a, b) = (caller("a"), caller("b"));
        assert!(rates.take(&a, Some(rate)).is_ok() && rates.take(&a, Some(rate)).is_ok());
        let refused = rates.take(&a, Some(rate)).unwrap_err();
        assert_eq!(refused.code, ErrorCode::RateLimited);
        let after = refused.retry_after.unwrap();
        assert!(after > Duration::from_secs(3000) && after <= Duration::from_secs(3600), "{after:?}");
        assert!(rates.take(&b, Some(rate)).is_ok());
        assert!(rates.take(&a, None).is_ok());
    }
}
