//! Two servers share nothing but Kubernetes; one of them hears of changes late, or never.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod common;

use axum::Router;
use axum::routing::get;
use common::{Fate, KEY, World, from_pool, tampered};
use http::{Method, Request, StatusCode};
use kube::ResourceExt as _;

/// Watches of the second server hang: it knows what its first list told, and what it is asked.
fn deaf(request: &Request<kube::client::Body>) -> Fate {
    if request.uri().query().is_some_and(|query| query.contains("watch=true")) { Fate::Hang } else { Fate::Pass }
}

#[tokio::test]
async fn what_one_has_made_the_other_serves_at_once() {
    let world = World::new().await;
    let other = world.another(tampered(world.client.clone(), deaf), |_| {}).await;
    let port = world.pod_serves(Router::new().route("/hello", get(async || "hello"))).await;
    let id = world.created().await;
    let path = format!("/v1/sandboxes/{id}");
    let seen = world.ask(other, Method::GET, &path, None).await;
    assert_eq!(seen.json()["status"]["state"], "Running");
    let endpoint = world.ask(other, Method::GET, &format!("{path}/endpoints/44772"), None).await;
    assert_eq!(endpoint.json(), world.get(&format!("{path}/endpoints/44772")).await.json());
    let proxied = world.ask(other, Method::GET, &format!("{path}/proxy/{port}/hello"), None).await;
    assert_eq!((proxied.status, &proxied.bytes[..]), (StatusCode::OK, &b"hello"[..]));
    let renewed = world
        .ask(
            other,
            Method::POST,
            &format!("{path}/renew-expiration"),
            serde_json::json!({"expiresAt": "2099-01-01T00:00:00Z"}),
        )
        .await;
    assert_eq!(renewed.status, StatusCode::OK);
    let deleted = world.ask(other, Method::DELETE, &path, None).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    world.nothing_left().await;
}

#[tokio::test]
async fn an_old_view_without_an_address_is_not_the_last_word() {
    let world = World::new().await;
    // The second server lists while the sandbox is not granted, and hears of nothing after that.
    let written = world.post("/v1/sandboxes", from_pool("claim")).await;
    let id = written.json()["id"].as_str().unwrap().to_owned();
    let object = world.sandboxes().get(&id).await.unwrap();
    let status = object.status.clone();
    let bare = serde_json::json!({"status": null});
    let params = kube::api::PatchParams::default();
    world.sandboxes().patch_status(&id, &params, &kube::api::Patch::Merge(bare)).await.unwrap();
    let other = world.another(tampered(world.client.clone(), deaf), |_| {}).await;
    let listed = world.ask(other, Method::GET, "/v1/sandboxes", None).await;
    assert_eq!(listed.json()["items"].as_array().unwrap().len(), 1);
    let again = serde_json::json!({"status": status});
    world.sandboxes().patch_status(&id, &params, &kube::api::Patch::Merge(again)).await.unwrap();
    let endpoint = world.ask(other, Method::GET, &format!("/v1/sandboxes/{id}/endpoints/80"), None).await;
    assert_eq!(endpoint.json()["endpoint"], format!("{}:80", world.pod_ip));
}

#[tokio::test]
async fn one_key_is_one_sandbox_over_replicas() {
    let world = World::new().await;
    let other = world.another(world.client.clone(), |_| {}).await;
    let create = |server| {
        let world = &world;
        async move {
            let request = Request::builder().method(Method::POST).uri(format!("http://{server}/v1/sandboxes"));
            let request = request.header("open-sandbox-api-key", KEY).header("idempotency-key", "once");
            let body = from_pool("claim").to_string();
            let request = request.header("content-type", "application/json").body(body.into()).unwrap();
            world.raw(request).await.json()["id"].as_str().unwrap().to_owned()
        }
    };
    let ids = futures::future::join_all([world.address, other, other, world.address].map(create)).await;
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let objects = world.sandboxes().list(&Default::default()).await.unwrap().items;
    assert_eq!(objects.iter().map(|o| o.name_any()).collect::<Vec<_>>(), [ids[0].clone()]);
}
