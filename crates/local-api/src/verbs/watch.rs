//! Watches: what a watcher is told of each change, in which order, and when it ends.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use serde_json::json;
use tokio::time::{Instant, Sleep};

use super::Target;
use crate::core::Core;
use crate::env::Delivery;
use crate::error::{ApiError, Result};
use crate::http::render::Rendering;
use crate::selector::Selector;
use crate::store::{Change, Feed, Scope, Stored, Verb, event_line};

/// The query of a watch.
#[derive(Debug, Clone, Default)]
pub(crate) struct WatchOptions {
    /// `None`: from now on, after what exists (also for version "0").
    pub(crate) since: Option<u64>,
    pub(crate) bookmarks: bool,
    pub(crate) send_initial: bool,
    pub(crate) timeout: Option<Duration>,
}

/// A watch without `timeoutSeconds` ends after this long, as kube-apiserver's do (it draws 30 to 60 minutes).
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(45 * 60);
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// Everything one watcher holds.
pub(crate) struct Watcher {
    core: Arc<Core>,
    target: Target,
    selector: Selector,
    rendering: Rendering,
    initial: VecDeque<Arc<Stored>>,
    initial_end: Option<u64>,
    feed: Feed,
    bookmarks: bool,
    deadline: Pin<Box<Sleep>>,
    bookmark: Pin<Box<Sleep>>,
    /// Version of the last line sent.
    sent: u64,
    finished: bool,
    /// Everything was told and the next answer is the end.
    lines: VecDeque<Bytes>,
    first: bool,
}

impl Watcher {
    /// Begins a watch.
    pub(crate) fn begin(
        core: &Arc<Core>,
        target: Target,
        selector: Selector,
        rendering: Rendering,
        options: &WatchOptions,
    ) -> Result<Self> {
        let namespace =
            (target.resource.namespaced && !target.namespace.is_empty()).then_some(target.namespace.as_str());
        let scope = match (selector.exact_name(), namespace) {
            (Some(name), Some(ns)) => Scope::One(ns.into(), name.into()),
            (Some(name), None) if !target.resource.namespaced => Scope::One("".into(), name.into()),
            (_, Some(ns)) => Scope::Namespace(ns.into()),
            (_, None) => Scope::All,
        };
        let table = &target.resource.table;
        let (initial, initial_end, feed, sent) = match options.since {
            Some(since) if !options.send_initial => {
                let now = core.store.state().version();
                if since > now {
                    let mut error =
                        ApiError::new(504, "Timeout", format!("Too large resource version: {since}, current: {now}"));
                    error.details.retry_after = Some(1);
                    return Err(error);
                }
                let (feed, _) = core.store.watch(table, scope, Some(since))?;
                (VecDeque::new(), None, feed, since)
            }
            _ => {
                let (objects, feed, now) = core.store.snapshot_and_watch(table, scope);
                let end = (options.send_initial && options.bookmarks).then_some(now);
                let wanted = objects.into_iter().filter(|o| selector.matches(&o.value)).collect();
                (wanted, end, feed, now)
            }
        };
        let lifetime = options.timeout.unwrap_or(DEFAULT_TIMEOUT);
        Ok(Self {
            core: core.clone(),
            target,
            selector,
            rendering,
            initial,
            initial_end,
            feed,
            bookmarks: options.bookmarks,
            deadline: Box::pin(tokio::time::sleep(lifetime)),
            bookmark: Box::pin(tokio::time::sleep(BOOKMARK_EVERY)),
            sent,
            finished: false,
            lines: VecDeque::new(),
            first: true,
        })
    }

    /// The body of the answer.
    pub(crate) fn into_stream(self) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
        futures::stream::unfold(self, |mut watcher| async move {
            let line = watcher.next_line().await?;
            Some((line, watcher))
        })
    }

    async fn next_line(&mut self) -> Option<std::io::Result<Bytes>> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(Ok(line));
            }
            if self.finished {
                return None;
            }
            if let Some(stored) = self.initial.pop_front() {
                let line = self.render(Verb::Added, &stored);
                return Some(Ok(line));
            }
            if let Some(version) = self.initial_end.take() {
                return Some(Ok(self.bookmark_line(version, true)));
            }
            tokio::select! {
                biased;
                () = &mut self.deadline => {
                    self.finished = true;
                    // The last word is a bookmark, so that the next watch starts from here.
                    if self.bookmarks && let Some(version) = self.core.store.version_if_drained(&self.feed) {
                        return Some(Ok(self.bookmark_line(version.max(self.sent), false)));
                    }
                    return None;
                }
                change = self.feed.next() => {
                    let Some(change) = change else {
                        self.finished = true;
                        if self.feed.lagged() {
                            return Some(Ok(self.expired()));
                        }
                        return None;
                    };
                    match self.core.hook.watch_event(&self.target.resource.plural, change.rv) {
                        Delivery::Pass => {}
                        Delivery::Delay(time) => tokio::time::sleep(time).await,
                        Delivery::Disconnect => {
                            self.finished = true;
                            return Some(Err(std::io::Error::other("the connection was cut")));
                        }
                        Delivery::Expire => {
                            self.finished = true;
                            return Some(Ok(self.expired()));
                        }
                    }
                    self.sent = self.sent.max(change.rv);
                    if let Some(line) = self.tell(&change) {
                        return Some(Ok(line));
                    }
                }
                () = &mut self.bookmark, if self.bookmarks => {
                    self.bookmark.as_mut().reset(Instant::now() + BOOKMARK_EVERY);
                    if let Some(version) = self.core.store.version_if_drained(&self.feed) {
                        self.sent = version.max(self.sent);
                        return Some(Ok(self.bookmark_line(self.sent, false)));
                    }
                }
            }
        }
    }

    /// What this watcher is told of a change; nothing when the object was not and is not in its sight.
    fn tell(&mut self, change: &Change) -> Option<Bytes> {
        let before = change.old.as_ref().is_some_and(|o| self.selector.matches(&o.value));
        if change.removed {
            return before.then(|| self.render_change(Verb::Deleted, change));
        }
        match (before, self.selector.matches(&change.new.value)) {
            (false, true) => Some(self.render_change(Verb::Added, change)),
            (true, true) => Some(self.render_change(Verb::Modified, change)),
            (true, false) => {
                // Kubernetes shows the object as it was when last in sight, with the version of the change.
                let mut last = change.old.as_ref()?.value.clone();
                crate::object::meta_mut(&mut last).insert("resourceVersion".into(), change.rv.to_string().into());
                Some(self.render(Verb::Deleted, &Arc::new(Stored::unsaved(last))))
            }
            (false, false) => None,
        }
    }

    fn render_change(&mut self, verb: Verb, change: &Change) -> Bytes {
        if self.rendering.is_stored_form(&self.target.resource) {
            return change.line(verb);
        }
        self.render(verb, &change.new)
    }

    fn render(&mut self, verb: Verb, stored: &Arc<Stored>) -> Bytes {
        let headed = std::mem::take(&mut self.first);
        let object = self.rendering.event_object(&self.target.resource, stored, headed, &self.core);
        event_line(verb.word(), &object)
    }

    fn expired(&self) -> Bytes {
        expired_line(&ApiError::expired(format!("too old resource version: {}", self.sent)))
    }

    fn bookmark_line(&mut self, version: u64, initial_end: bool) -> Bytes {
        let resource = &self.target.resource;
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = json!({"kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata});
        let object = self.rendering.bookmark_object(object);
        event_line("BOOKMARK", &crate::store::encode(&object))
    }
}

/// The last line of a watch that cannot go on.
pub(crate) fn expired_line(error: &ApiError) -> Bytes {
    event_line("ERROR", &crate::store::encode(&error.to_status()))
}
