//! The work queue: each key once, never two workers on one key, back-off for what fails.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};
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

    /// The next key that counts as running from now on, or when to ask again.
    fn take(&mut self, now: Instant) -> Result<Key, Option<Instant>> {
        while let Some((at, _)) = self.timers.first()
            && *at <= now
        {
            if let Some((_, key)) = self.timers.pop_first() {
                self.due.remove(&key);
                self.push(key);
            }
        }
        let Some(key) = self.ready.pop_front() else {
            return Err(self.timers.first().map(|(at, _)| *at));
        };
        self.queued.remove(&key);
        self.running.insert(key.clone());
        self.disarm(&key);
        Ok(key)
    }

    fn finish(&mut self, key: Key, again_in: Option<Duration>, failed: bool, now: Instant) {
        self.running.remove(&key);
        if failed {
            let failures = self.failures.entry(key.clone()).or_default();
            *failures = failures.saturating_add(1);
            let wait = FIRST_BACKOFF.saturating_mul(1 << (*failures - 1).min(12)).min(LONGEST_BACKOFF);
            // What was touched meanwhile waits too: it would most likely fail for the same reason.
            self.again.remove(&key);
            self.arm(key, now + wait);
            return;
        }
        self.failures.remove(&key);
        if self.again.remove(&key) {
            self.push(key.clone());
        }
        if let Some(wait) = again_in {
            self.arm(key, now + wait);
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
            let taken = self.inner.lock().take(Instant::now());
            let wake_at = match taken {
                Ok(key) => return key,
                Err(wake_at) => wake_at,
            };
            match wake_at {
                Some(at) => {
                    tokio::select! {
                        biased;
                        () = self.wake.notified() => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => self.wake.notified().await,
            }
        }
    }

    /// Keys that are ready, that are being worked on, and that wait for their time.
    pub(crate) fn depth(&self) -> (usize, usize, usize) {
        let inner = self.inner.lock();
        (inner.ready.len(), inner.running.len(), inner.timers.len())
    }

    /// The work on a key is over; `again_in` asks for another look, `failed` for a later try.
    pub(crate) fn done(&self, key: Key, again_in: Option<Duration>, failed: bool) {
        self.inner.lock().finish(key, again_in, failed, Instant::now());
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

    #[test]
    fn a_key_is_worked_on_by_one_at_a_time_and_once_more_when_touched() {
        let (mut queue, now) = (Inner::default(), Instant::now());
        [key("a"), key("a"), key("b")].into_iter().for_each(|k| queue.push(k));
        assert_eq!(queue.take(now), Ok(key("a")));
        queue.push(key("a"));
        assert_eq!(queue.take(now), Ok(key("b")));
        assert_eq!(queue.take(now), Err(None), "a is being worked on");
        queue.finish(key("a"), None, false, now);
        assert_eq!(queue.take(now), Ok(key("a")));
    }

    #[test]
    fn failures_wait_longer_and_longer() {
        let (mut queue, mut now) = (Inner::default(), Instant::now());
        queue.push(key("a"));
        let mut waits = Vec::new();
        for _ in 0..20 {
            assert_eq!(queue.take(now), Ok(key("a")));
            queue.finish(key("a"), None, true, now);
            let due = queue.take(now).unwrap_err().unwrap();
            waits.push(due - now);
            now = due;
        }
        assert!(waits.windows(2).all(|w| w[0] <= w[1]), "{waits:?}");
        assert_eq!((waits[0], waits[19]), (FIRST_BACKOFF, LONGEST_BACKOFF));
    }

    #[test]
    fn a_timer_brings_the_key_back_once() {
        let (mut queue, now) = (Inner::default(), Instant::now());
        queue.push(key("a"));
        assert_eq!(queue.take(now), Ok(key("a")));
        queue.finish(key("a"), Some(Duration::from_secs(60)), false, now);
        let due = now + Duration::from_secs(60);
        assert_eq!(queue.take(now), Err(Some(due)));
        assert_eq!(queue.take(due), Ok(key("a")));
        assert_eq!(queue.take(due), Err(None));
    }
}
