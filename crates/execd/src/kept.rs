//! What is kept by id while somebody uses it: sessions and terminals, so many at most.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// Something that goes when nobody uses it.
pub trait Idle {
    /// When it will have been unused for `idle`, as things are now.
    fn idle_until(&self, idle: Duration) -> Instant;
}

/// What is kept. Clones share it.
pub struct Kept<T> {
    all: Arc<Mutex<BTreeMap<String, Arc<T>>>>,
    max: usize,
    idle: Duration,
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Self { all: self.all.clone(), max: self.max, idle: self.idle }
    }
}

impl<T: Idle> Kept<T> {
    /// Nothing yet; at most `max`, each of which may go after `idle` without use.
    pub fn new(max: usize, idle: Duration) -> Self {
        Self { all: Arc::default(), max, idle }
    }

    /// Keeps one more.
    ///
    /// # Errors
    /// There are as many as may be: the number.
    pub fn insert(&self, id: String, new: Arc<T>) -> Result<(), usize> {
        let mut all = self.all.lock();
        if all.len() >= self.max {
            return Err(self.max);
        }
        all.insert(id, new);
        Ok(())
    }

    /// The one with this id.
    pub fn find(&self, id: &str) -> Option<Arc<T>> {
        self.all.lock().get(id).cloned()
    }

    /// Keeps the one with this id no longer.
    pub fn remove(&self, id: &str) -> Option<Arc<T>> {
        self.all.lock().remove(id)
    }

    /// All, by id.
    pub fn list(&self) -> Vec<Arc<T>> {
        self.all.lock().values().cloned().collect()
    }

    /// Waits until it was unused for long enough; nothing when it is gone before.
    pub async fn unused(&self, of: Weak<T>) -> Option<Arc<T>> {
        loop {
            let until = of.upgrade()?.idle_until(self.idle);
            sleep_until(until).await;
            let found = of.upgrade()?;
            if found.idle_until(self.idle) <= Instant::now() {
                return Some(found);
            }
        }
    }
}
