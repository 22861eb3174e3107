//! What the API takes from outside: time, random names, and a hook that a simulation uses to break things.

use std::time::Duration;

use jiff::Timestamp;

use crate::error::Result;

/// Where timestamps come from.
pub trait Clock: Send + Sync + 'static {
    /// The time to write into objects.
    fn now(&self) -> Timestamp;
}

/// Where UIDs and generated names come from.
pub trait Ids: Send + Sync + 'static {
    /// A fresh UID.
    fn uid(&self) -> String;
    /// The five characters that end a generated name.
    fn suffix(&self) -> String;
}

/// The system's clock and random numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Clock for System {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

impl Ids for System {
    fn uid(&self) -> String {
        uuid::Uuid::new_v4().to_string()
    }

    fn suffix(&self) -> String {
        suffix_of(uuid::Uuid::new_v4().as_u128())
    }
}

/// Kubernetes leaves out vowels and look-alikes, so that no generated name is a word.
const SUFFIX_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Five characters drawn from `random`, for [`Ids::suffix`].
pub fn suffix_of(mut random: u128) -> String {
    // The lowest bits of a v4 UUID are random; the version bits sit above the 62 used here.
    random &= (1 << 62) - 1;
    (0..5)
        .map(|_| {
            let index = usize::try_from(random % 27).unwrap_or_default();
            random /= 27;
            char::from(SUFFIX_ALPHABET[index])
        })
        .collect()
}

/// One write as the hook sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteInfo {
    /// `create`, `update`, `patch`, `delete`.
    pub verb: &'static str,
    /// API group, empty for core.
    pub group: String,
    /// Plural name of the resource.
    pub plural: String,
    /// Subresource, when there is one.
    pub subresource: Option<String>,
    /// Namespace, empty for cluster-wide objects.
    pub namespace: String,
    /// Name, empty when the server is to generate it.
    pub name: String,
}

/// What becomes of one watch event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Send it now.
    Pass,
    /// Send it, and what follows it, after this long.
    Delay(Duration),
    /// End the watch as a broken connection would.
    Disconnect,
    /// End the watch with 410, as a compacted store would.
    Expire,
}

/// Called around each write and before each watch event; a simulation injects faults here.
#[async_trait::async_trait]
pub trait Hook: Send + Sync + 'static {
    /// Before the write is looked at; an error is the request's answer.
    async fn before_write(&self, _write: &WriteInfo) -> Result<()> {
        Ok(())
    }

    /// After the write was applied; an error replaces the answer although the write stands.
    async fn after_write(&self, _write: &WriteInfo) -> Result<()> {
        Ok(())
    }

    /// Before an event of `plural` with this version goes to one watcher.
    fn watch_event(&self, _plural: &str, _resource_version: u64) -> Delivery {
        Delivery::Pass
    }
}

/// The hook that does nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHook;

impl Hook for NoHook {}

/// RFC 3339 in whole seconds, as `metav1.Time` is written.
pub fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
