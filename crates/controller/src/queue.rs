//! The work queue: each key once, never two workers on one key, back-off for what fails.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::world::Key;

/// First wait after a failure; it doubles with each.
const FIRST_BACKOFF: Duration = Duration::from_millis(10);
/// Longest wait after a failure.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// Keys to work on.
#[derive(Default)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    wake: Notify,
}

#[derive(Default)]
struct Inner {
    ready: VecDeque<Key>,
    queued: HashSet<Key>,
    running: HashSet<Key>,
    /// Touched while running: to be run again.
    again: HashSet<Key>,
    timers: BTreeSet<(Instant, Key)>,
    due: HashMap<Key, Instant>,
    failures: HashMap<Key, u32>,
}

impl Inner {
    fn push(&mut self, key: Key) {
        if self.running.contains(&key) {
            self.again.insert(key);
        } else if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn arm(&mut self, key: Key, at: Instant) {
        if let Some(old) = self.due.get(&key).copied() {
            if old <= at {
                return;
            }
            self.timers.remove(&(old, key.clone()));
        }
        self.due.insert(key.clone(), at);
        self.timers.insert((at, key));
    }

    fn disarm(&mut self, key: &Key) {
        if let Some(old) = self.due.remove(key) {
            self.timers.remove(&(old, key.clone()));
        }
    }
}

impl Queue {
    /// Adds keys to work on as soon as may be.
    pub(crate) fn add(&self, keys: impl IntoIterator<Item = Key>) {
        let mut inner = self.inner.lock();
        let mut any = false;
        for key in keys {
            inner.push(key);
            any = true;
        }
        drop(inner);
        if any {
            self.wake.notify_one();
        }
    }

    /// The next key; waits for one. It counts as running until [`Queue::done`].
    pub(crate) async fn next(&self) -> Key {
        loop {
            let wake_at = {
                let mut inner = self.inner.lock();
                let now = Instant::now();
                while let Some((at, _)) = inner.timers.first()
                    && *at <= now
                {
                    if let Some((_, key)) = inner.timers.pop_first() {
                        inner.due.remove(&key);
                        inner.push(key);
                    }
                }
                if let Some(key) = inner.ready.pop_front() {
                    inner.queued.remove(&key);
                    inner.running.insert(key.clone());
                    inner.disarm(&key);
                    return key;
                }
                inner.timers.first().map(|(at, _)| *at)
            };
            match wake_at {
                Some(at) => {
                    tokio::select! {
                        () = self.wake.notified() => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => self.wake.notified().await,
            }
        }
    }

    /// The work on a key is over; `again_in` asks for another look, `failed` for a later try.
    pub(crate) fn done(&self, key: Key, again_in: Option<Duration>, failed: bool) {
        let mut inner = self.inner.lock();
        inner.running.remove(&key);
        let now = Instant::now();
        if failed {
            let failures = inner.failures.entry(key.clone()).or_default();
            *failures = failures.saturating_add(1);
            let wait = FIRST_BACKOFF.saturating_mul(1 << (*failures - 1).min(12)).min(LONGEST_BACKOFF);
            // What was touched meanwhile waits too: it would most likely fail for the same reason.
            inner.again.remove(&key);
            inner.arm(key, now + wait);
        } else {
            inner.failures.remove(&key);
            if inner.again.remove(&key) {
                inner.push(key.clone());
            }
            if let Some(wait) = again_in {
                inner.arm(key, now + wait);
            }
        }
        drop(inner);
        self.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::ObjectName;

    fn key(name: &str) -> Key {
        Key::Pool(ObjectName::new("d", name))
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_worked_on_by_one_at_a_time_and_once_more_when_touched() {
        let queue = Queue::default();
        queue.add([key("a"), key("a"), key("b")]);
        assert_eq!(queue.next().await, key("a"));
        queue.add([key("a")]);
        assert_eq!(queue.next().await, key("b"));
        let nothing = tokio::time::timeout(Duration::from_secs(1), queue.next()).await;
        assert!(nothing.is_err(), "a is being worked on");
        queue.done(key("a"), None, false);
        assert_eq!(queue.next().await, key("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_and_longer() {
        let queue = Queue::default();
        queue.add([key("a")]);
        let mut waits = Vec::new();
        for _ in 0..4 {
            let before = Instant::now();
            assert_eq!(queue.next().await, key("a"));
            waits.push(before.elapsed());
            queue.done(key("a"), None, true);
        }
        assert!(waits.windows(2).all(|w| w[0] < w[1]), "{waits:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_brings_the_key_back() {
        let queue = Queue::default();
        queue.add([key("a")]);
        let first = queue.next().await;
        queue.done(first, Some(Duration::from_secs(60)), false);
        let before = Instant::now();
        assert_eq!(queue.next().await, key("a"));
        assert!(before.elapsed() >= Duration::from_secs(60));
    }
}
