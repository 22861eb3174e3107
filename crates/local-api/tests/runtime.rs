//! What controllers lean on: reflectors, streaming lists, applies with owners, faults by the hook.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::*;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Api, ResourceExt as _};
use local_api::env::{Delivery, Hook, WriteInfo};
use local_api::error::ApiError;
use serde_json::json;

async fn reflects(config_of: watcher::Config) {
    let client = local_api::Api::in_memory().client("default");
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    for index in 0..5 {
        maps.create(&PostParams::default(), &config(&format!("c{index}"), "1")).await.expect("created");
    }
    let (store, writer) = reflector::store();
    let mut stream = std::pin::pin!(reflector(writer, watcher(maps.clone(), config_of)).applied_objects());
    let mut seen = 0;
    while seen < 5 {
        tokio::time::timeout(DEADLINE, stream.try_next())
            .await
            .expect("in time")
            .expect("an event")
            .expect("an object");
        seen += 1;
    }
    maps.create(&PostParams::default(), &config("late", "1")).await.expect("created");
    let late = tokio::time::timeout(DEADLINE, stream.try_next())
        .await
        .expect("in time")
        .expect("an event")
        .expect("an object");
    assert_eq!(late.name_any(), "late");
    assert_eq!(store.state().len(), 6);
}

#[tokio::test]
async fn a_reflector_by_list_and_watch() {
    reflects(watcher::Config::default()).await;
}

#[tokio::test]
async fn a_reflector_by_streaming_list() {
    reflects(watcher::Config::default().streaming_lists()).await;
}

#[tokio::test]
async fn a_slow_watcher_is_cut_off_and_writers_never_wait() {
    let options = local_api::Options {
        limits: local_api::Limits { history: 1_000, queue: 2, ..Default::default() },
        ..Default::default()
    };
    let client = local_api::Api::in_memory_with(options).client("default");
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    let version =
        maps.list(&ListParams::default()).await.expect("a list").metadata.resource_version.expect("a version");
    let mut events = std::pin::pin!(maps.watch(&WatchParams::default(), &version).await.expect("a watch"));
    for index in 0..20 {
        maps.create(&PostParams::default(), &config(&format!("c{index}"), "1")).await.expect("created");
    }
    let mut told = 0;
    loop {
        match tokio::time::timeout(DEADLINE, events.next()).await.expect("in time") {
            Some(Ok(WatchEvent::Added(_))) => told += 1,
            Some(Ok(WatchEvent::Error(status))) => break assert_eq!(status.code, 410),
            other => panic!("{other:?}"),
        }
    }
    assert!(told < 20);
}

#[tokio::test]
async fn applies_own_fields() {
    let client = local_api::Api::in_memory().client("default");
    with_widgets(&client).await;
    let api = widgets(&client, "default");
    let first = PatchParams::apply("first");
    let config = |spec| Patch::Apply(widget("w", spec));
    api.patch("w", &first, &config(json!({"size": 1, "note": "n", "parts": [{"name": "a"}]}))).await.expect("created");
    let second = PatchParams::apply("second");
    let refused = refusal(api.patch("w", &second, &config(json!({"size": 2}))).await.expect_err("a conflict"));
    assert_eq!((refused.0, refused.1.as_str()), (409, "Conflict"));
    assert!(refused.2.contains("conflict with \"first\": .spec.size"), "{}", refused.2);
    let taken = api
        .patch("w", &second.clone().force(), &config(json!({"size": 2, "parts": [{"name": "b"}]})))
        .await
        .expect("forced");
    assert_eq!(taken.data["spec"]["size"], 2);
    assert_eq!(taken.data["spec"]["parts"].as_array().map(Vec::len), Some(2));
    // The first lets go of its note and its part; the second's stay.
    let left = api.patch("w", &first, &config(json!({}))).await.expect("applied");
    assert!(left.data["spec"].get("note").is_none());
    assert_eq!(left.data["spec"]["parts"], json!([{"name": "b", "count": 1}]));
    let version = left.resource_version();
    let again = api.patch("w", &first, &config(json!({}))).await.expect("applied");
    assert_eq!(again.resource_version(), version, "an apply that changes nothing is no write");
}

#[tokio::test]
async fn pods_are_owned_by_container() {
    let client = local_api::Api::in_memory().client("default");
    let api: Api<Pod> = Api::namespaced(client, "default");
    let apply = |image: &str| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "main", "image": image}]}});
    api.patch("p", &PatchParams::apply("a"), &Patch::Apply(apply("x:1"))).await.expect("created");
    let refused =
        refusal(api.patch("p", &PatchParams::apply("b"), &Patch::Apply(apply("x:2"))).await.expect_err("a conflict"));
    assert!(refused.2.contains(r#".spec.containers[name="main"].image"#), "{}", refused.2);
}

#[tokio::test]
async fn events_have_two_faces() {
    let client = local_api::Api::in_memory().client("default");
    let newer: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(client.clone(), "default");
    let event = serde_json::from_value(json!({
        "metadata": {"name": "e"}, "eventTime": "2026-01-01T00:00:00.000000Z", "action": "Do", "reason": "Why", "type": "Normal",
        "note": "said", "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}, "reportingController": "c", "reportingInstance": "i",
    }))
    .expect("an event");
    newer.create(&PostParams::default(), &event).await.expect("created");
    let older: Api<Event> = Api::namespaced(client, "default");
    let found = older.list(&ListParams::default().fields("involvedObject.name=p")).await.expect("a list");
    assert_eq!(found.items[0].message.as_deref(), Some("said"));
    assert_eq!(newer.get("e").await.expect("an event").note.as_deref(), Some("said"));
}

struct Faults(AtomicUsize);

#[async_trait::async_trait]
impl Hook for Faults {
    async fn before_write(&self, write: &WriteInfo) -> Result<(), ApiError> {
        if write.verb == "create" && self.0.fetch_add(1, Ordering::SeqCst) == 0 {
            return Err(ApiError::new(429, "TooManyRequests", "later"));
        }
        Ok(())
    }

    async fn after_write(&self, write: &WriteInfo) -> Result<(), ApiError> {
        if write.verb == "delete" { Err(ApiError::new(504, "Timeout", "applied, but you do not know")) } else { Ok(()) }
    }

    fn watch_event(&self, _plural: &str, _version: u64) -> Delivery {
        Delivery::Expire
    }
}

#[tokio::test]
async fn the_hook_breaks_what_it_wants() {
    let options = local_api::Options { hook: Arc::new(Faults(AtomicUsize::new(0))), ..Default::default() };
    let client = local_api::Api::in_memory_with(options).client("default");
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    assert_eq!(refusal(maps.create(&PostParams::default(), &config("a", "1")).await.expect_err("a fault")).0, 429);
    maps.create(&PostParams::default(), &config("a", "1")).await.expect("created");
    assert_eq!(refusal(maps.delete("a", &DeleteParams::default()).await.expect_err("a fault")).0, 504);
    assert!(maps.get_opt("a").await.expect("an answer").is_none(), "the write was applied all the same");
    let mut events = std::pin::pin!(maps.watch(&WatchParams::default(), "1").await.expect("a watch"));
    match events.next().await {
        Some(Ok(WatchEvent::Error(status))) => assert_eq!(status.code, 410),
        other => panic!("{other:?}"),
    }
}

/// A clock that is set by hand.
struct Hands(parking_lot::Mutex<jiff::Timestamp>);

impl local_api::env::Clock for Hands {
    fn now(&self) -> jiff::Timestamp {
        *self.0.lock()
    }
}

#[tokio::test]
async fn events_go_after_an_hour_and_the_oldest_when_there_are_too_many() {
    let start: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
    let clock = Arc::new(Hands(parking_lot::Mutex::new(start)));
    let options = local_api::Options {
        clock: clock.clone(),
        limits: local_api::Limits { events: 20, ..Default::default() },
        ..Default::default()
    };
    let events: Api<Event> = Api::namespaced(local_api::Api::in_memory_with(options).client("default"), "default");
    let event = |name: String| -> Event {
        serde_json::from_value(json!({"metadata": {"name": name}, "involvedObject": {"namespace": "default"}}))
            .expect("an event")
    };
    for index in 0..30 {
        events.create(&PostParams::default(), &event(format!("e{index:02}"))).await.expect("created");
    }
    eventually("removal of the oldest", || async {
        let names: Vec<String> =
            events.list(&ListParams::default()).await.expect("a list").iter().map(|e| e.name_any()).collect();
        (names.len() <= 20 && names.contains(&"e29".into()) && !names.contains(&"e00".into())).then_some(())
    })
    .await;
    *clock.0.lock() = start + jiff::SignedDuration::from_mins(61);
    events.create(&PostParams::default(), &event("new".into())).await.expect("created");
    eventually("removal of what is over", || async {
        let names: Vec<String> =
            events.list(&ListParams::default()).await.expect("a list").iter().map(|e| e.name_any()).collect();
        (names == ["new"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn lists_by_label_find_what_changed_its_labels() {
    let client = local_api::Api::in_memory().client("default");
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let labelled = |name: &str, tier: &str| {
        let mut object = config(name, "1");
        object.metadata.labels = Some([("tier".to_owned(), tier.to_owned())].into());
        object
    };
    let found = |selector: &'static str| {
        let maps = maps.clone();
        async move {
            let list = maps.list(&ListParams::default().labels(selector)).await.expect("a list");
            list.iter().map(|o| o.name_any()).collect::<Vec<_>>()
        }
    };
    maps.create(&PostParams::default(), &labelled("b", "web")).await.expect("created");
    // The index of `tier` begins here.
    assert_eq!(found("tier=web").await, ["b"]);
    maps.create(&PostParams::default(), &labelled("a", "web")).await.expect("created");
    maps.create(&PostParams::default(), &labelled("c", "db")).await.expect("created");
    assert_eq!(found("tier=web").await, ["a", "b"]);
    assert_eq!(found("tier in (db, web),tier!=db").await, ["a", "b"]);
    let moved = json!({"metadata": {"labels": {"tier": "db"}}});
    maps.patch("a", &PatchParams::default(), &Patch::Merge(&moved)).await.expect("patched");
    maps.delete("b", &DeleteParams::default()).await.expect("deleted");
    assert!(found("tier=web").await.is_empty());
    assert_eq!(found("tier=db").await, ["a", "c"]);
    let elsewhere: Api<ConfigMap> = Api::namespaced(client, "kube-system");
    let params = ListParams::default().labels("tier=db");
    assert!(elsewhere.list(&params).await.expect("a list").items.is_empty(), "the index keeps namespaces apart");
}

#[tokio::test]
async fn history_is_bounded_in_bytes() {
    let limits = local_api::Limits { history_bytes: 64 << 10, ..Default::default() };
    let client = local_api::Api::in_memory_with(local_api::Options { limits, ..Default::default() }).client("default");
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    let version =
        maps.list(&ListParams::default()).await.expect("a list").metadata.resource_version.expect("a version");
    let large = "x".repeat(20 << 10);
    let mut newest = String::new();
    for index in 0..5 {
        let made = maps.create(&PostParams::default(), &config(&format!("c{index}"), &large)).await.expect("created");
        newest = made.resource_version().expect("a version");
    }
    assert_eq!(watch_refusal(&maps, &version).await, 410);
    let near = (newest.parse::<u64>().expect("a number") - 2).to_string();
    let mut events = std::pin::pin!(maps.watch(&WatchParams::default(), &near).await.expect("a watch"));
    for name in ["c3", "c4"] {
        match tokio::time::timeout(DEADLINE, events.next()).await.expect("in time") {
            Some(Ok(WatchEvent::Added(object))) => assert_eq!(object.name_any(), name),
            other => panic!("{other:?}"),
        }
    }
}
