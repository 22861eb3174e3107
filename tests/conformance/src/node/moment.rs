//! Waits for a moment, and takes down what is to be compared.

use std::time::Duration;

use futures::{AsyncBufReadExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, LogParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::case::{Moment, When};
use super::ground::Ground;
use super::normal::Facts;
use super::step;

/// Longest wait for a moment that gives none.
const PATIENCE: Duration = Duration::from_secs(60);
/// A status that holds but is not the recorded one is believed to stay so after this long without a change.
const SETTLED: Duration = Duration::from_secs(4);

/// The newest pod as a watch tells it.
pub struct Watched {
    pod: watch::Receiver<Seen>,
    task: JoinHandle<()>,
}

/// What is known of the pod.
#[derive(Clone)]
enum Seen {
    NotYet,
    Pod(Box<Value>),
    Gone,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watched {
    /// Begins to watch a pod.
    pub fn start(ground: &Ground, name: &str) -> Self {
        let (sender, pod) = watch::channel(Seen::NotYet);
        // Dynamic, so that every field is seen as it came.
        let resource = ApiResource::erase::<Pod>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(ground.client.clone(), &ground.namespace, &resource);
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let task = tokio::spawn(async move {
            let mut stream = std::pin::pin!(watcher(api, config).default_backoff());
            while let Some(event) = stream.next().await {
                match event {
                    Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                        if let Ok(pod) = serde_json::to_value(pod) {
                            sender.send_replace(Seen::Pod(Box::new(pod)));
                        }
                    }
                    Ok(watcher::Event::Delete(_)) => drop(sender.send_replace(Seen::Gone)),
                    Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
                    Err(error) => eprintln!("the pod cannot be watched: {error}"),
                }
            }
        });
        Self { pod, task }
    }

    /// Waits for a moment. `agrees` tells whether a status is the recorded one, where there is a recording.
    pub async fn reach(&mut self, moment: &Moment, agrees: impl Fn(&Value) -> bool) -> (Value, Facts) {
        let deadline = Instant::now() + moment.seconds.map_or(PATIENCE, Duration::from_secs);
        loop {
            let seen = self.pod.borrow_and_update().clone();
            let mut settled = None;
            let (status, facts) = match &seen {
                Seen::Gone => (json!({"gone": true}), Facts::default()),
                Seen::NotYet => (json!({}), Facts::default()),
                Seen::Pod(pod) => {
                    let typed: Pod = serde_json::from_value((**pod).clone()).unwrap_or_default();
                    let facts = Facts::of(&typed);
                    (facts.status(&pod["status"]), facts)
                }
            };
            let met = holds(&moment.when, &seen, &status);
            let status = without(status, &moment.ignore);
            if met {
                if moment.quiet.is_none() && agrees(&status) {
                    return (status, facts);
                }
                settled = Some(Instant::now() + moment.quiet.map_or(SETTLED, Duration::from_secs));
            }
            let until = settled.unwrap_or(deadline).min(deadline);
            tokio::select! {
                changed = self.pod.changed() => if changed.is_err() {
                    return (json!({"never": status}), facts);
                },
                () = tokio::time::sleep_until(until) => {
                    let status = if settled.is_some() { status } else { json!({"never": status}) };
                    return (status, facts);
                }
            }
        }
    }
}

fn pointer(path: &str) -> String {
    // The only names with a slash are of this domain.
    format!("/{}", path.replace("example.com/", "example.com~1"))
}

fn without(mut status: Value, ignored: &[String]) -> Value {
    for path in ignored {
        if let Some(value) = status.pointer_mut(&pointer(path)) {
            *value = "<any>".into();
        }
    }
    status
}

fn holds(when: &When, seen: &Seen, status: &Value) -> bool {
    match (when, seen) {
        (When::Word(_), seen) => matches!(seen, Seen::Gone),
        (When::Holds(paths), Seen::Pod(_)) => paths
            .iter()
            .all(|(path, wanted)| status.pointer(&pointer(path)).is_some_and(|found| wanted == "*" || wanted == found)),
        (When::Holds(_), _) => false,
    }
}

/// What is compared beside the status: logs and commands. A log is read until it is the recorded one.
pub async fn beside(
    ground: &Ground,
    pod: &str,
    moment: &Moment,
    facts: &Facts,
    recorded: Option<&Value>,
) -> Map<String, Value> {
    let pods = ground.pods();
    let mut found = Map::new();
    for (name, containers, previous) in [("logs", &moment.logs, false), ("previous", &moment.previous, true)] {
        let mut logs = Map::new();
        for container in containers {
            let parameters = LogParams { container: Some(container.clone()), previous, ..LogParams::default() };
            let expected = recorded.and_then(|recorded| recorded[name][container].as_str()).unwrap_or_default();
            let text = if previous || expected.is_empty() {
                pods.logs(pod, &parameters).await
            } else {
                followed(&pods, pod, parameters, |text| facts.text(text) == expected).await
            };
            let text = text.unwrap_or_else(|error| format!("failed: {error}"));
            logs.insert(container.clone(), facts.text(&text).into());
        }
        if !logs.is_empty() {
            found.insert(name.to_owned(), logs.into());
        }
    }
    let mut results = Vec::new();
    for command in &moment.exec {
        results.push(facts.value(&step::exec(&pods, pod, command).await));
    }
    if !results.is_empty() {
        found.insert("exec".to_owned(), results.into());
    }
    found
}

/// Reads a log as it grows until it is what was expected, or for long enough.
async fn followed(
    pods: &Api<Pod>,
    pod: &str,
    parameters: LogParams,
    enough: impl Fn(&str) -> bool,
) -> kube::Result<String> {
    let mut text = String::new();
    let read = async {
        let mut lines = pods.log_stream(pod, &LogParams { follow: true, ..parameters }).await?.lines();
        while let Some(Ok(line)) = lines.next().await {
            text.push_str(&line);
            text.push('\n');
            if enough(&text) {
                break;
            }
        }
        Ok(())
    };
    // What has come until then is compared.
    match tokio::time::timeout(SETTLED, read).await {
        Ok(Err(error)) => Err(error),
        Ok(Ok(())) | Err(_) => Ok(text),
    }
}
