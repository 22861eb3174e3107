//! Waiting for objects, with a deadline.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::StreamExt as _;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// How long any one thing may take on a slow machine.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Waits until one object of a kind fulfils a condition, and gives it.
pub async fn until<K>(api: Api<K>, name: &str, what: &str, fulfilled: impl FnMut(&K) -> bool) -> Result<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    until_within(LIMIT, api, name, what, fulfilled).await
}

/// [`until`], with a deadline of its own.
pub async fn until_within<K>(
    limit: Duration,
    api: Api<K>,
    name: &str,
    what: &str,
    mut fulfilled: impl FnMut(&K) -> bool,
) -> Result<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher(api, config).default_backoff().applied_objects().boxed();
    let mut last = None;
    let wait = async {
        while let Some(event) = events.next().await {
            if let Ok(object) = event {
                if fulfilled(&object) {
                    return Ok(object);
                }
                last = Some(object);
            }
        }
        bail!("the watch on {name} ended")
    };
    match tokio::time::timeout(limit, wait).await {
        Ok(outcome) => outcome,
        Err(_) => bail!("{name}: not {what} within {limit:?}; it is {last:?}"),
    }
}

/// Waits until a kind has no object that a condition holds for.
pub async fn none_left<K>(
    limit: Duration,
    api: Api<K>,
    config: watcher::Config,
    what: &str,
    mut counts: impl FnMut(&K) -> bool,
) -> Result<()>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut left = std::collections::BTreeSet::new();
    let mut listed = false;
    let wait = async {
        let mut events = watcher(api, config).default_backoff().boxed();
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => left.clear(),
                Ok(watcher::Event::InitDone) => listed = true,
                Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                    let name = object.meta().name.clone().unwrap_or_default();
                    if counts(&object) {
                        left.insert(name)
                    } else {
                        left.remove(&name)
                    };
                }
                Ok(watcher::Event::Delete(object)) => {
                    left.remove(object.meta().name.as_deref().unwrap_or_default());
                }
                Err(_) => {}
            }
            if listed && left.is_empty() {
                return Ok(());
            }
        }
        bail!("the watch on {what} ended")
    };
    match tokio::time::timeout(limit, wait).await {
        Ok(outcome) => outcome.context("cannot watch"),
        Err(_) => bail!("{what} left after {limit:?}: {left:?}"),
    }
}
