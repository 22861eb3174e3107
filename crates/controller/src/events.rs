//! Kubernetes Events: what people read in `kubectl describe`. Bounded, counted instead of repeated,
//! and never in anybody's way.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use api_types::names::annotations;
use api_types::names::events::{CONTROLLER, TERMINATED};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::Clock;
use crate::planner::Note;

/// Events that wait to be written; more are dropped.
const QUEUE: usize = 256;
/// Different events that are remembered in order to be counted.
const REMEMBERED: usize = 1_024;
/// A repeated event is written again no more often than this.
const REPEAT_INTERVAL: Duration = Duration::from_secs(60);
/// How long one write may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// Kubernetes: an event's message has at most 1,024 bytes.
const MAX_MESSAGE: usize = 1_024;

/// The object an event is about.
#[derive(Debug, Clone)]
pub(crate) struct Subject(ObjectReference);

impl Subject {
    pub(crate) fn of<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        Self(ObjectReference {
            api_version: Some(K::api_version(&()).into_owned()),
            kind: Some(K::kind(&()).into_owned()),
            name: Some(object.name_any()),
            namespace: object.namespace(),
            uid: object.uid(),
            resource_version: object.resource_version(),
            ..ObjectReference::default()
        })
    }
}

/// Takes events.
#[derive(Clone)]
pub(crate) struct Notes(mpsc::Sender<(Subject, Note)>);

impl Notes {
    /// A sender, and the writer to be run.
    pub(crate) fn new(client: Client, clock: Arc<dyn Clock>) -> (Self, Recorder) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), Recorder { client, clock, receiver, known: HashMap::new() })
    }

    /// Takes one; drops it when too many wait.
    pub(crate) fn tell(&self, subject: &Subject, note: Note) {
        let Note { warning, reason, message, .. } = &note;
        if *warning {
            tracing::warn!(object = ?subject.0.name, reason, message);
        } else {
            tracing::info!(object = ?subject.0.name, reason, message);
        }
        if self.0.try_send((subject.clone(), note)).is_err() {
            tracing::debug!("an event was dropped");
        }
    }
}

/// Writes events.
pub(crate) struct Recorder {
    client: Client,
    clock: Arc<dyn Clock>,
    receiver: mpsc::Receiver<(Subject, Note)>,
    known: HashMap<(String, String, String), Known>,
}

struct Known {
    name: String,
    count: i32,
    written: Instant,
}

impl Recorder {
    /// Writes until every sender is gone.
    pub(crate) async fn run(mut self) {
        while let Some((subject, note)) = self.receiver.recv().await {
            if tokio::time::timeout(DEADLINE, self.write(&subject.0, note)).await.is_err() {
                tracing::debug!("an event was not written in time");
            }
        }
    }

    async fn write(&mut self, subject: &ObjectReference, note: Note) {
        let namespace = subject.namespace.as_deref().unwrap_or("default");
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let now = self.clock.now();
        let key = (subject.uid.clone().unwrap_or_default(), note.reason.clone(), note.message.clone());
        if let Some(known) = self.known.get_mut(&key) {
            known.count = known.count.saturating_add(1);
            if known.written.elapsed() < REPEAT_INTERVAL {
                return;
            }
            known.written = Instant::now();
            let patch = serde_json::json!({"count": known.count, "lastTimestamp": Time(now)});
            if api.patch(&known.name, &PatchParams::default(), &Patch::Merge(&patch)).await.is_ok() {
                return;
            }
            // It has expired: a new one begins.
            self.known.remove(&key);
        }
        let event = event(subject, &note, now);
        match api.create(&PostParams::default(), &event).await {
            Ok(created) => {
                if self.known.len() >= REMEMBERED {
                    self.known.retain(|_, k| k.written.elapsed() < REPEAT_INTERVAL);
                }
                if self.known.len() < REMEMBERED {
                    let known = Known { name: created.name_any(), count: 1, written: Instant::now() };
                    self.known.insert(key, known);
                }
            }
            Err(error) => tracing::debug!(%error, "an event was not written"),
        }
    }
}

fn event(subject: &ObjectReference, note: &Note, now: Timestamp) -> Event {
    let name = subject.name.as_deref().unwrap_or("object");
    let mut message = note.message.clone();
    if message.len() > MAX_MESSAGE {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
    }
    let annotations = note.last.as_ref().and_then(|end| {
        let text = serde_json::to_string(end).ok()?;
        Some(BTreeMap::from([(annotations::TERMINATION.to_owned(), text)]))
    });
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{}", uuid::Uuid::new_v4().simple())),
            namespace: subject.namespace.clone(),
            annotations,
            ..ObjectMeta::default()
        },
        action: note.last.is_some().then(|| TERMINATED.to_owned()),
        involved_object: subject.clone(),
        reason: Some(note.reason.clone()),
        message: Some(message),
        type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        source: Some(EventSource { component: Some(CONTROLLER.to_owned()), host: None }),
        reporting_component: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(CONTROLLER.to_owned()),
        ..Event::default()
    }
}
