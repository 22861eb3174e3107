//! Objects through a client in the same process: versions, watches, finalizers, owners, patches.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;

use common::*;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Secret};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, WatchEvent, WatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

fn start() -> kube::Client {
    local_api::Api::in_memory().client("default")
}

#[tokio::test]
async fn create_read_update_delete_and_conflict() {
    let client = start();
    let api: Api<ConfigMap> = Api::namespaced(client, "default");
    let made = api.create(&PostParams::default(), &config("a", "1")).await.expect("created");
    assert!(made.uid().is_some() && made.creation_timestamp().is_some());
    let (code, reason, message) =
        refusal(api.create(&PostParams::default(), &config("a", "1")).await.expect_err("taken"));
    assert_eq!((code, reason.as_str(), message.as_str()), (409, "AlreadyExists", "configmaps \"a\" already exists"));

    let mut newer = made.clone();
    newer.data = Some(BTreeMap::from([("key".into(), "2".into())]));
    let second = api.replace("a", &PostParams::default(), &newer).await.expect("replaced");
    assert_ne!(second.resource_version(), made.resource_version());
    let (code, reason, message) = refusal(api.replace("a", &PostParams::default(), &newer).await.expect_err("stale"));
    assert_eq!((code, reason.as_str()), (409, "Conflict"));
    assert!(message.starts_with("Operation cannot be fulfilled on configmaps \"a\": the object has been modified"));

    let same = api.replace("a", &PostParams::default(), &second).await.expect("nothing changed");
    assert_eq!(same.resource_version(), second.resource_version(), "a write that changes nothing is no write");

    let preconditions = Preconditions { uid: Some("other".into()), ..Preconditions::default() };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    assert_eq!(refusal(api.delete("a", &params).await.expect_err("another uid")).0, 409);
    api.delete("a", &DeleteParams::default()).await.expect("deleted");
    let (code, reason, message) = refusal(api.get("a").await.expect_err("gone"));
    assert_eq!((code, reason.as_str(), message.as_str()), (404, "NotFound", "configmaps \"a\" not found"));
}

#[tokio::test]
async fn a_watch_tells_everything_after_its_version() {
    let client = start();
    let api: Api<ConfigMap> = Api::namespaced(client, "default");
    let list = api.list(&ListParams::default()).await.expect("a list");
    let version = list.metadata.resource_version.expect("lists have a version");
    let labelled = |name: &str, label: &str| {
        let mut object = config(name, "1");
        object.metadata.labels = Some(BTreeMap::from([("tier".into(), label.into())]));
        object
    };
    api.create(&PostParams::default(), &labelled("seen", "web")).await.expect("created");
    api.create(&PostParams::default(), &labelled("unseen", "db")).await.expect("created");
    let patch = json!({"metadata": {"labels": {"tier": "db"}}});
    api.patch("seen", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("patched");
    let patch = json!({"metadata": {"labels": {"tier": "web"}}});
    api.patch("unseen", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("patched");
    api.delete("unseen", &DeleteParams::default()).await.expect("deleted");

    let params = WatchParams::default().labels("tier=web").timeout(5);
    let events = api.watch(&params, &version).await.expect("a watch");
    let told: Vec<String> = events
        .take(4)
        .map_ok(|event| match event {
            WatchEvent::Added(o) => format!("ADDED {}", o.name_any()),
            WatchEvent::Modified(o) => format!("MODIFIED {}", o.name_any()),
            WatchEvent::Deleted(o) => format!("DELETED {}", o.name_any()),
            other => format!("{other:?}"),
        })
        .try_collect()
        .await
        .expect("events");
    assert_eq!(told, ["ADDED seen", "DELETED seen", "ADDED unseen", "DELETED unseen"]);
}

#[tokio::test]
async fn a_version_too_old_is_expired() {
    let options = local_api::Options {
        limits: local_api::Limits { history: 4, queue: 64, ..Default::default() },
        ..Default::default()
    };
    let client = local_api::Api::in_memory_with(options).client("default");
    let api: Api<ConfigMap> = Api::namespaced(client, "default");
    let version = api.list(&ListParams::default()).await.expect("a list").metadata.resource_version.expect("a version");
    for index in 0..6 {
        api.create(&PostParams::default(), &config(&format!("c{index}"), "1")).await.expect("created");
    }
    assert_eq!(watch_refusal(&api, &version).await, 410);
}

#[tokio::test]
async fn lists_in_pages_are_of_one_moment() {
    let client = start();
    let api: Api<ConfigMap> = Api::namespaced(client, "default");
    for index in 0..5 {
        api.create(&PostParams::default(), &config(&format!("c{index}"), "1")).await.expect("created");
    }
    let first = api.list(&ListParams::default().limit(2)).await.expect("page");
    assert_eq!((first.items.len(), first.metadata.remaining_item_count), (2, Some(3)));
    api.delete("c4", &DeleteParams::default()).await.expect("deleted");
    let token = first.metadata.continue_.expect("more to come");
    let rest = api.list(&ListParams::default().continue_token(&token)).await.expect("rest");
    assert_eq!(rest.items.iter().map(|o| o.name_any()).collect::<Vec<_>>(), ["c2", "c3", "c4"]);
    let again = api.list(&ListParams::default().continue_token(&token)).await.expect("the same page");
    assert_eq!(again.items.len(), 3);
}

#[tokio::test]
async fn finalizers_hold_and_generation_counts() {
    let client = start();
    with_widgets(&client).await;
    let api = widgets(&client, "default");
    let mut object = widget("w", json!({"size": 1}));
    object.metadata.finalizers = Some(vec!["test.example.com/hold".into()]);
    let made = api.create(&PostParams::default(), &object).await.expect("created");
    assert_eq!(made.metadata.generation, Some(1));
    assert_eq!(made.data["spec"]["color"], "red", "defaults are filled in");

    let status = json!({"status": {"ready": 1}, "spec": {"size": 9}});
    let after = api.patch_status("w", &PatchParams::default(), &Patch::Merge(&status)).await.expect("status");
    assert_eq!((after.metadata.generation, &after.data["spec"]["size"]), (Some(1), &json!(1)));
    assert_eq!(after.data["status"]["ready"], 1);
    let both = json!({"status": {"ready": 7}, "spec": {"size": 2}});
    let after = api.patch("w", &PatchParams::default(), &Patch::Merge(&both)).await.expect("spec");
    assert_eq!((after.metadata.generation, &after.data["status"]["ready"]), (Some(2), &json!(1)));

    let held = api.delete("w", &DeleteParams::default()).await.expect("accepted").left().expect("held");
    assert!(held.metadata.deletion_timestamp.is_some());
    let more = json!({"metadata": {"finalizers": ["test.example.com/hold", "test.example.com/late"]}});
    let refused = refusal(api.patch("w", &PatchParams::default(), &Patch::Merge(&more)).await.expect_err("too late"));
    assert_eq!(refused.0, 422);
    let none = json!({"metadata": {"finalizers": null}});
    api.patch("w", &PatchParams::default(), &Patch::Merge(&none)).await.expect("released");
    assert_eq!(refusal(api.get("w").await.expect_err("gone")).0, 404);
}

#[tokio::test]
async fn custom_resources_are_pruned_and_validated() {
    let client = start();
    with_widgets(&client).await;
    let api = widgets(&client, "default");
    let spec =
        json!({"size": 1, "junk": true, "template": {"any": {"thing": 1}}, "max": "10%", "parts": [{"name": "a"}]});
    let made = api.create(&PostParams::default(), &widget("w", spec)).await.expect("created");
    assert!(made.data["spec"].get("junk").is_none());
    assert_eq!(made.data["spec"]["template"]["any"]["thing"], 1);
    assert_eq!(made.data["spec"]["parts"][0]["count"], 1);

    for (spec, field, part) in [
        (json!({}), "spec.size", "Required value"),
        (json!({"size": "big"}), "spec.size", "must be of type integer"),
        (json!({"size": -1}), "spec.size", "should be greater than or equal to 0"),
        (json!({"size": 1, "color": "green"}), "spec.color", "Unsupported value"),
        (json!({"size": 1, "parts": [{"name": "a"}, {"name": "a"}]}), "spec.parts[1]", "Duplicate value"),
    ] {
        let error = api.create(&PostParams::default(), &widget("bad", spec.clone())).await.expect_err("refused");
        let kube::Error::Api(status) = error else { panic!("{error}") };
        assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
        let causes = status.details.expect("details").causes;
        assert!(causes.iter().any(|c| c.field == field && c.message.contains(part)), "{spec}: {causes:?}");
    }
}

#[tokio::test]
async fn dependents_follow_their_owner() {
    let client = start();
    let api: Api<ConfigMap> = Api::namespaced(client, "default");
    let owned = |name: &str, owner: &str, uid: &str, blocks: bool| -> ConfigMap {
        serde_json::from_value(json!({"metadata": {"name": name, "ownerReferences": [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": uid, "blockOwnerDeletion": blocks}]}}))
        .expect("a config map")
    };
    let gone = |name: &'static str| {
        let api = api.clone();
        move || {
            let api = api.clone();
            async move { api.get_opt(name).await.expect("an answer").is_none().then_some(()) }
        }
    };
    // Background.
    let owner = api.create(&PostParams::default(), &config("owner", "1")).await.expect("created");
    let uid = owner.uid().expect("a uid");
    api.create(&PostParams::default(), &owned("child", "owner", &uid, false)).await.expect("created");
    api.delete("owner", &DeleteParams::background()).await.expect("deleted");
    eventually("collection of the child", gone("child")).await;
    // An owner that never was.
    api.create(&PostParams::default(), &owned("stray", "nobody", "no-such-uid", false)).await.expect("created");
    eventually("collection of the stray", gone("stray")).await;
    // Foreground: the owner waits for a child that is held.
    let owner = api.create(&PostParams::default(), &config("front", "1")).await.expect("created");
    let mut child = owned("held", "front", &owner.uid().expect("a uid"), true);
    child.metadata.finalizers = Some(vec!["test.example.com/hold".into()]);
    api.create(&PostParams::default(), &child).await.expect("created");
    api.delete("front", &DeleteParams::foreground()).await.expect("accepted");
    eventually("deletion of the held child", || async {
        api.get("held").await.expect("there").metadata.deletion_timestamp.map(|_| ())
    })
    .await;
    let front = api.get("front").await.expect("it waits");
    assert_eq!(front.finalizers(), ["foregroundDeletion"]);
    let none = json!({"metadata": {"finalizers": null}});
    api.patch("held", &PatchParams::default(), &Patch::Merge(&none)).await.expect("released");
    eventually("end of the owner", gone("front")).await;
    // Orphan.
    let owner = api.create(&PostParams::default(), &config("leaving", "1")).await.expect("created");
    api.create(&PostParams::default(), &owned("kept", "leaving", &owner.uid().expect("a uid"), true))
        .await
        .expect("created");
    api.delete("leaving", &DeleteParams::orphan()).await.expect("accepted");
    eventually("end of the owner", gone("leaving")).await;
    assert!(api.get("kept").await.expect("still there").owner_references().is_empty());
}

#[tokio::test]
async fn a_namespace_goes_with_what_it_holds() {
    let client = start();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let space: Namespace = serde_json::from_value(json!({"metadata": {"name": "team"}})).expect("a namespace");
    namespaces.create(&PostParams::default(), &space).await.expect("created");
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "team");
    let mut held = config("held", "1");
    held.metadata.finalizers = Some(vec!["test.example.com/hold".into()]);
    api.create(&PostParams::default(), &held).await.expect("created");
    api.create(&PostParams::default(), &config("free", "1")).await.expect("created");
    namespaces.delete("team", &DeleteParams::default()).await.expect("accepted");
    let (code, reason, message) =
        refusal(api.create(&PostParams::default(), &config("late", "1")).await.expect_err("closed"));
    assert_eq!((code, reason.as_str()), (403, "Forbidden"));
    assert!(message.contains("because it is being terminated"), "{message}");
    eventually("deletion of the free one", || async {
        api.get_opt("free").await.expect("an answer").is_none().then_some(())
    })
    .await;
    assert_eq!(
        namespaces.get("team").await.expect("it waits").status.and_then(|s| s.phase).as_deref(),
        Some("Terminating")
    );
    let none = json!({"metadata": {"finalizers": null}});
    api.patch("held", &PatchParams::default(), &Patch::Merge(&none)).await.expect("released");
    eventually("end of the namespace", || async {
        namespaces.get_opt("team").await.expect("an answer").is_none().then_some(())
    })
    .await;
    let (code, ..) = refusal(api.create(&PostParams::default(), &config("late", "1")).await.expect_err("no namespace"));
    assert_eq!(code, 404);
}

#[tokio::test]
async fn pods_are_defaulted_and_end_gracefully() {
    let client = start();
    let api: Api<Pod> = Api::namespaced(client.clone(), "default");
    let made = api.create(&PostParams::default(), &pod("p")).await.expect("created");
    let spec = made.spec.as_ref().expect("a spec");
    assert_eq!(spec.restart_policy.as_deref(), Some("Always"));
    assert_eq!(spec.termination_grace_period_seconds, Some(30));
    assert_eq!(spec.containers[0].image_pull_policy.as_deref(), Some("Always"));
    assert_eq!(made.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Pending"));
    // Nobody runs it: it goes at once.
    api.delete("p", &DeleteParams::default()).await.expect("deleted");
    assert!(api.get_opt("p").await.expect("an answer").is_none());

    let mut bound = pod("q");
    bound.spec.as_mut().expect("a spec").node_name = Some("here".into());
    let made = api.create(&PostParams::default(), &bound).await.expect("created");
    let held = api.delete("q", &DeleteParams::default()).await.expect("accepted").left().expect("it stays");
    assert_eq!(held.metadata.deletion_grace_period_seconds, Some(30));
    let again = api.delete("q", &DeleteParams::default()).await.expect("accepted").left().expect("it stays");
    assert_eq!(again.resource_version(), held.resource_version());
    let now = DeleteParams::default().grace_period(0);
    let wrong = DeleteParams {
        preconditions: Some(Preconditions { uid: Some("x".into()), ..Default::default() }),
        ..now.clone()
    };
    assert_eq!(refusal(api.delete("q", &wrong).await.expect_err("another pod")).0, 409);
    let right = DeleteParams { preconditions: Some(Preconditions { uid: made.uid(), ..Default::default() }), ..now };
    api.delete("q", &right).await.expect("gone");
    assert!(api.get_opt("q").await.expect("an answer").is_none());
}

#[tokio::test]
async fn bad_pods_are_refused_with_the_path() {
    let client = start();
    let api: Api<Pod> = Api::namespaced(client, "default");
    let with = |container: Value| -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": [container]}})).expect("a pod")
    };
    for (container, field) in [
        (json!({"name": "a"}), "spec.containers[0].image"),
        (json!({"name": "A", "image": "x"}), "spec.containers[0].name"),
        (
            json!({"name": "a", "image": "x", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}),
            "spec.containers[0].volumeMounts[0].name",
        ),
        (
            json!({"name": "a", "image": "x", "ports": [{"containerPort": 70000}]}),
            "spec.containers[0].ports[0].containerPort",
        ),
        (json!({"name": "a", "image": "x", "env": [{"name": "A=B"}]}), "spec.containers[0].env[0].name"),
    ] {
        let error = api.create(&PostParams::default(), &with(container)).await.expect_err("refused");
        let kube::Error::Api(status) = error else { panic!("{error}") };
        assert_eq!(status.code, 422, "{}", status.message);
        assert!(
            status.details.expect("details").causes.iter().any(|c| c.field == field),
            "{field}: {}",
            status.message
        );
    }
}

#[tokio::test]
async fn generated_names_secrets_and_dry_runs() {
    let client = start();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "default");
    let secret: Secret =
        serde_json::from_value(json!({"metadata": {"generateName": "key-"}, "stringData": {"a": "b"}}))
            .expect("a secret");
    let made = secrets.create(&PostParams::default(), &secret).await.expect("created");
    assert_eq!(made.name_any().len(), "key-".len() + 5);
    assert_eq!(made.data.expect("data")["a"].0, b"b");
    assert_eq!(made.type_.as_deref(), Some("Opaque"));
    let nodes: Api<Node> = Api::all(client);
    let node: Node = serde_json::from_value(json!({"metadata": {"name": "n"}})).expect("a node");
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    nodes.create(&dry, &node).await.expect("it would be created");
    assert!(nodes.get_opt("n").await.expect("an answer").is_none());
}
