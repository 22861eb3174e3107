//! What the tests share: a definition, pods, and waiting with a deadline.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

/// No step of a test takes this long.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A definition with everything that the server does to custom resources.
pub fn widget_crd() -> CustomResourceDefinition {
    serde_json::from_str(
        r#"{
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.test.example.com"},
        "spec": {
            "group": "test.example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wd"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    {"name": "SIZE", "type": "integer", "jsonPath": ".spec.size"},
                    {"name": "NOTE", "type": "string", "jsonPath": ".spec.note", "priority": 1},
                    {"name": "AGE", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
                ],
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "properties": {
                        "spec": {
                            "type": "object",
                            "required": ["size"],
                            "properties": {
                                "size": {"type": "integer", "minimum": 0},
                                "color": {"type": "string", "enum": ["red", "blue"], "default": "red"},
                                "note": {"type": "string", "nullable": true},
                                "max": {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": true},
                                "template": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                                "parts": {
                                    "type": "array",
                                    "x-kubernetes-list-type": "map",
                                    "x-kubernetes-list-map-keys": ["name"],
                                    "items": {
                                        "type": "object",
                                        "required": ["name"],
                                        "properties": {"name": {"type": "string"}, "count": {"type": "integer", "default": 1}}
                                    }
                                }
                            }
                        },
                        "status": {"type": "object", "properties": {"ready": {"type": "integer"}}}
                    }
                }}
            }]
        }
    }"#,
    )
    .expect("the definition is well formed")
}

/// The widgets' API of a namespace.
pub fn widgets(client: &Client, namespace: &str) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: "test.example.com".into(),
        version: "v1".into(),
        api_version: "test.example.com/v1".into(),
        kind: "Widget".into(),
        plural: "widgets".into(),
    };
    Api::namespaced_with(client.clone(), namespace, &resource)
}

/// Applies the widgets' definition.
pub async fn with_widgets(client: &Client) {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    crds.create(&PostParams::default(), &widget_crd()).await.expect("the definition is taken");
}

/// A widget.
pub fn widget(name: &str, spec: Value) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "test.example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec,
    }))
    .expect("an object")
}

/// A pod of one container.
pub fn pod(name: &str) -> Pod {
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": "busybox"}]},
    }))
    .expect("a pod")
}

/// A config map with one entry.
pub fn config(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"key": value}})).expect("a config map")
}

/// Waits for something that happens by itself, and tells what when it does not.
pub async fn eventually<T, F>(what: &str, mut probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let begun = std::time::Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(begun.elapsed() < DEADLINE, "{what} did not happen");
        tokio::task::yield_now().await;
    }
}

/// The code and reason of a refusal.
pub fn refusal(error: kube::Error) -> (u16, String, String) {
    match error {
        kube::Error::Api(status) => (status.code, status.reason, status.message),
        other => panic!("not an answer of the server: {other}"),
    }
}

/// The code with which a watch from `version` ends at once, told within it.
pub async fn watch_refusal(maps: &Api<ConfigMap>, version: &str) -> u16 {
    use futures::StreamExt as _;
    let events = maps.watch(&kube::api::WatchParams::default(), version).await.expect("a watch");
    match tokio::time::timeout(DEADLINE, std::pin::pin!(events).next()).await.expect("in time") {
        Some(Ok(kube::api::WatchEvent::Error(status))) => status.code,
        other => panic!("{other:?}"),
    }
}
