//! Events about pods: recorded without making anybody wait, repeated ones counted, floods cut.

use std::collections::{HashMap, VecDeque};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use tokio::sync::mpsc;

/// Events that may wait to be written; further ones are dropped.
const QUEUE: usize = 1024;
/// Distinct events that are remembered for counting.
const REMEMBERED: usize = 4096;
/// Events about one pod in a burst, as the kubelet has it; after that one every [`REFILL_SECONDS`].
const BURST: f64 = 25.0;
/// Seconds that buy one more event about a pod after its burst. Kubernetes has 300, for clusters of thousands.
const REFILL_SECONDS: f64 = 30.0;

/// How an event is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Things go their way.
    Normal,
    /// Somebody should look.
    Warning,
}

/// Records events.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Note>,
}

struct Note {
    pod: ObjectReference,
    kind: Kind,
    reason: &'static str,
    message: String,
}

impl Recorder {
    /// Starts writing events through `client`, as `component` on `host`.
    pub fn start(client: kube::Client, component: &'static str, host: String) -> Self {
        let (queue, notes) = mpsc::channel(QUEUE);
        tokio::spawn(write(client, component, host, notes));
        Self { queue }
    }

    /// Records an event about a pod, or about a container of it.
    pub fn record(&self, pod: &Pod, container: Option<&str>, kind: Kind, reason: &'static str, message: String) {
        let field = container.map(|name| {
            let init = pod
                .spec
                .iter()
                .flat_map(|spec| spec.init_containers.iter().flatten())
                .any(|container| container.name == name);
            format!("spec.{}{{{name}}}", if init { "initContainers" } else { "containers" })
        });
        let pod = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            resource_version: pod.metadata.resource_version.clone(),
            field_path: field,
        };
        // An event is told, never waited for.
        let _ = self.queue.try_send(Note { pod, kind, reason, message });
    }
}

type Key = (String, String, &'static str, String);

struct Known {
    name: String,
    count: i32,
}

/// Lets a burst through and then a trickle.
struct Bucket {
    left: f64,
    at: Timestamp,
}

impl Bucket {
    fn take(&mut self, now: Timestamp) -> bool {
        let passed = now.duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed / REFILL_SECONDS).min(BURST);
        self.at = now;
        if self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
    }
}

async fn write(client: kube::Client, component: &'static str, host: String, mut notes: mpsc::Receiver<Note>) {
    let mut known: HashMap<Key, Known> = HashMap::new();
    let mut order: VecDeque<Key> = VecDeque::new();
    let mut buckets: HashMap<String, Bucket> = HashMap::new();
    while let Some(note) = notes.recv().await {
        let now = Timestamp::now();
        let uid = note.pod.uid.clone().unwrap_or_default();
        if buckets.len() > REMEMBERED {
            buckets.retain(|_, bucket| bucket.left < BURST - 1.0);
        }
        if !buckets.entry(uid.clone()).or_insert(Bucket { left: BURST, at: now }).take(now) {
            continue;
        }
        let namespace = note.pod.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
        let key: Key = (uid, note.pod.field_path.clone().unwrap_or_default(), note.reason, note.message.clone());
        if let Some(before) = known.get_mut(&key) {
            before.count += 1;
            let patch = serde_json::json!({"count": before.count, "lastTimestamp": Time(now)});
            if events.patch(&before.name, &PatchParams::default(), &Patch::Merge(patch)).await.is_ok() {
                continue;
            }
            known.remove(&key);
        }
        let name = format!(
            "{}.{:x}",
            note.pod.name.clone().unwrap_or_default().chars().take(200).collect::<String>(),
            uuid::Uuid::new_v4().as_u64_pair().0
        );
        let event = Event {
            metadata: ObjectMeta { name: Some(name.clone()), namespace: Some(namespace), ..ObjectMeta::default() },
            involved_object: note.pod,
            type_: Some(match note.kind {
                Kind::Normal => "Normal".to_owned(),
                Kind::Warning => "Warning".to_owned(),
            }),
            reason: Some(note.reason.to_owned()),
            message: Some(note.message.chars().take(1024).collect()),
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            source: Some(EventSource { component: Some(component.to_owned()), host: Some(host.clone()) }),
            reporting_component: Some(component.to_owned()),
            reporting_instance: Some(host.clone()),
            ..Event::default()
        };
        if let Err(error) = events.create(&PostParams::default(), &event).await {
            tracing::debug!(%error, reason = note.reason, "event not recorded");
            continue;
        }
        if known.insert(key.clone(), Known { name, count: 1 }).is_none() {
            order.push_back(key);
        }
        while order.len() > REMEMBERED {
            if let Some(oldest) = order.pop_front() {
                known.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    #[test]
    fn a_flood_about_one_pod_is_cut_to_a_trickle() {
        let start = Timestamp::UNIX_EPOCH;
        let mut bucket = Bucket { left: BURST, at: start };
        assert_eq!((0..100).filter(|_| bucket.take(start)).count(), 25);
        assert!(!bucket.take(start + SignedDuration::from_secs(10)));
        assert!(bucket.take(start + SignedDuration::from_secs(41)));
    }
}
