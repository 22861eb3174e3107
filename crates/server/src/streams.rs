//! Places for what stays open: proxied requests, tunnels and event streams. A bound on them all leaves connections and
//! descriptors for short requests.

use std::sync::Arc;
use std::time::Duration;

use api_types::ErrorCode;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::ApiError;
use crate::metrics::Counted;

/// The places.
pub struct Streams {
    places: Arc<Semaphore>,
    bound: usize,
}

/// One that is taken and counted, until it is dropped.
pub struct Place {
    _counted: Counted,
    _permit: OwnedSemaphorePermit,
}

impl Streams {
    /// So many.
    pub fn new(bound: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(bound)), bound }
    }

    /// Takes one, and counts it in `gauge`.
    ///
    /// # Errors
    ///
    /// When none is left.
    pub fn take(&self, gauge: &Gauge) -> Result<Place, ApiError> {
        let permit = self.places.clone().try_acquire_owned().map_err(|_| {
            let message = format!("{} streams are open already", self.bound);
            ApiError::new(ErrorCode::Overloaded, message).retry_after(Duration::from_secs(1))
        })?;
        Ok(Place { _counted: Counted::new(gauge), _permit: permit })
    }
}
