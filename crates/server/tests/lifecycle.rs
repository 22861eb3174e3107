//! The lifecycle API on the wire: what published clients send, and exactly what they are answered.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod common;

use std::sync::atomic::Ordering;
use std::time::Duration;

use api_types::auth::TokenSecret;
use common::{KEY, SECRET, World, from_pool};
use http::{Method, StatusCode};
use kube::ResourceExt as _;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

fn assert_no_null(value: &Value) {
    match value {
        Value::Null => panic!("a null"),
        Value::Array(items) => items.iter().for_each(assert_no_null),
        Value::Object(members) => members.values().for_each(assert_no_null),
        _ => {}
    }
}

#[tokio::test]
async fn a_create_is_one_write_and_its_answer_can_be_used() {
    let world = World::new().await;
    let answer = world.create("claim").await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(world.writes.creates.load(Ordering::SeqCst), 1);
    assert_eq!(world.writes.deletes.load(Ordering::SeqCst), 0);
    let body = answer.json();
    assert_no_null(&body);
    assert_eq!(body["status"]["state"], "Running");
    assert_eq!(body["entrypoint"], json!(["tail", "-f", "/dev/null"]));
    assert_eq!(body["metadata"], json!({"play": "claim"}));
    assert_eq!(body["warnings"].as_array().unwrap().len(), 2);
    let timing = answer.headers["server-timing"].to_str().unwrap();
    assert!(timing.starts_with("accepted;dur=") && timing.contains("claimed;dur="), "{timing}");

    let id = body["id"].as_str().unwrap();
    let object = world.sandboxes().get(id).await.unwrap();
    let token = TokenSecret::new(SECRET).execd_token(&object.uid().unwrap().into(), &format!("uid-of-{id}").into());
    let execd = json!({"endpoint": format!("{}:44772", world.pod_ip), "headers": {"X-EXECD-ACCESS-TOKEN": token}});
    assert_eq!(body["execd"], execd);
    assert_eq!(world.get(&format!("/v1/sandboxes/{id}/endpoints/44772?use_server_proxy=false")).await.json(), execd);
    let spec = serde_json::to_value(&object.spec).unwrap();
    assert_eq!(spec["claim"], json!({"env": {"AGENT_ID": "agent-1"}, "entrypoint": ["tail", "-f", "/dev/null"]}));
    assert_eq!(object.finalizers(), ["pool.sandbox.opensandbox.io/pool-allocation"]);
}

#[tokio::test]
async fn a_sandbox_lives_and_ends() {
    let world = World::new().await;
    let id = world.created().await;
    let path = format!("/v1/sandboxes/{id}");
    let body = world.get(&path).await.json();
    assert_no_null(&body);
    assert_eq!(body["allocation"], json!({"mode": "pool", "poolRef": "pool", "state": "allocated"}));
    assert_eq!(body["image"]["uri"], "unknown");

    let patched = world.send(Method::PATCH, &format!("{path}/metadata"), json!({"team": "x", "play": null})).await;
    assert_eq!(patched.json()["metadata"], json!({"team": "x"}));
    assert_eq!(world.get(&path).await.json()["metadata"], json!({"team": "x"}));

    let renewed =
        world.post(&format!("{path}/renew-expiration"), json!({"expiresAt": "2099-01-01T00:00:00+00:00"})).await;
    assert_eq!(renewed.json(), json!({"expiresAt": "2099-01-01T00:00:00Z"}));
    assert_eq!(world.get(&path).await.json()["expiresAt"], "2099-01-01T00:00:00Z");
    let past = world.post(&format!("{path}/renew-expiration"), json!({"expiresAt": "2001-01-01T00:00:00Z"})).await;
    assert_eq!(past.code(), "DOCKER::INVALID_EXPIRATION");

    assert_eq!(
        world.get(&format!("{path}/endpoints/18080")).await.json(),
        json!({"endpoint": format!("{}:18080", world.pod_ip)})
    );
    let proxied = world.get(&format!("{path}/endpoints/8080?use_server_proxy=true")).await.json();
    assert_eq!(proxied["endpoint"], format!("{}/v1/sandboxes/{id}/proxy/8080", world.address));
    let bare = world.get(&format!("/sandboxes/{id}/endpoints/8080?use_server_proxy=true")).await.json();
    assert_eq!(bare["endpoint"], format!("{}/sandboxes/{id}/proxy/8080", world.address));
    assert_eq!(world.get(&format!("{path}/endpoints/0")).await.code(), "DOCKER::INVALID_PORT");

    let deleted = world.send(Method::DELETE, &path, None).await;
    assert_eq!((deleted.status, deleted.bytes.len()), (StatusCode::NO_CONTENT, 0));
    world.nothing_left().await;
    assert_eq!(world.send(Method::DELETE, &path, None).await.code(), "KUBERNETES::SANDBOX_NOT_FOUND");
}

#[tokio::test]
async fn without_a_timeout_there_is_nothing_to_renew() {
    let world = World::new().await;
    let mut body = from_pool("claim");
    body["timeout"] = Value::Null;
    let answer = world.post("/v1/sandboxes", body).await.json();
    assert_eq!(answer.get("expiresAt"), None);
    let path = format!("/v1/sandboxes/{}/renew-expiration", answer["id"].as_str().unwrap());
    let refused = world.post(&path, json!({"expiresAt": "2099-01-01T00:00:00Z"})).await;
    assert_eq!(refused.code(), "DOCKER::NO_EXPIRATION");
}

#[tokio::test]
async fn lists_filter_and_page() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for i in 0..3 {
        let mut body = from_pool("claim");
        body["metadata"]["n"] = json!(format!("{}", i % 2));
        ids.push(world.post("/v1/sandboxes", body).await.json()["id"].as_str().unwrap().to_owned());
    }
    let page = world.get("/v1/sandboxes?page=2&pageSize=2").await.json();
    assert_no_null(&page);
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    assert_eq!(
        page["pagination"],
        json!({"page": 2, "pageSize": 2, "totalItems": 3, "totalPages": 2, "hasNextPage": false})
    );
    let total = async |query: &str| {
        world.get(&format!("/v1/sandboxes?{query}")).await.json()["pagination"]["totalItems"].clone()
    };
    assert_eq!(total("state=running").await, 3);
    assert_eq!(total("state=Paused&state=Failed").await, 0);
    assert_eq!(total("metadata=n%3D0").await, 2);
    assert_eq!(total("metadata=n%253D0").await, 2);
    assert_eq!(total("metadata=n%3D0%26play%3Dclaim&state=Running").await, 2);
    assert_eq!(world.get("/v1/sandboxes?metadata=n").await.code(), "INVALID_METADATA_FORMAT");
    assert_eq!(world.get("/v1/sandboxes?pageSize=201").await.code(), "SANDBOX::INVALID_PARAMETER");
}

#[tokio::test]
async fn a_create_that_fails_is_told_and_leaves_nothing() {
    let world = World::with(|config| {
        config.limits.acquisition_timeout = Duration::from_secs(1);
        config.limits.create_timeout = Duration::from_secs(2);
    })
    .await;
    let failed = world.create("fail").await;
    assert_eq!(failed.code(), "KUBERNETES::POD_FAILED");
    assert_eq!(failed.message(), "TASK_FAILED: exit code 3: no such file");
    let full = world.create("full").await;
    assert_eq!(full.code(), "KUBERNETES::POOL_CAPACITY_EXHAUSTED");
    assert_eq!(full.headers["retry-after"], "1");
    assert!(full.message().contains("poolMax of 10"), "{}", full.message());
    let hanging = world.create("hang").await;
    assert_eq!(hanging.code(), "KUBERNETES::POD_READY_TIMEOUT");
    assert!(hanging.message().contains("has not answered the claim"), "{}", hanging.message());
    let ignored = world.create("ignore").await;
    assert_eq!(ignored.code(), "KUBERNETES::POD_READY_TIMEOUT");
    assert!(ignored.message().contains("opensandbox-controller-manager runs"), "{}", ignored.message());
    world.nothing_left().await;
}

#[tokio::test]
async fn what_can_never_be_granted_is_refused_at_once_and_not_written() {
    let world = World::new().await;
    let mut body = from_pool("claim");
    body["extensions"]["poolRef"] = json!("empty-pool");
    let never = world.post("/v1/sandboxes", body.clone()).await;
    assert_eq!(never.code(), "KUBERNETES::POOL_CAPACITY_EXHAUSTED");
    assert!(never.headers.contains_key("retry-after"));
    for name in ["no-pool", "../secrets", "A"] {
        body["extensions"]["poolRef"] = json!(name);
        assert_eq!(world.post("/v1/sandboxes", body.clone()).await.code(), "KUBERNETES::POOL_NOT_FOUND", "{name}");
    }
    let mut body = from_pool("claim");
    body["timeout"] = json!(1);
    let short = world.post("/v1/sandboxes", body).await;
    assert_eq!(short.code(), "SANDBOX::INVALID_PARAMETER");
    assert_eq!(short.message(), "timeout: is 1 s; the shortest is 60 s");
    let mut body = from_pool("claim");
    body["env"] = json!({"A=B": "x"});
    assert!(world.post("/v1/sandboxes", body).await.message().starts_with("env[\"A=B\"]: "));
    assert_eq!(world.writes.creates.load(Ordering::SeqCst), 0);
}

/// Sends a create and does not wait for the answer.
async fn begin_create(world: &World, body: &str) -> tokio::net::TcpStream {
    let mut stream = tokio::net::TcpStream::connect(world.address).await.unwrap();
    let head = format!(
        "POST /v1/sandboxes HTTP/1.1\r\nhost: x\r\nopen-sandbox-api-key: {KEY}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_shutdown_takes_back_what_was_begun() {
    let mut world = World::with(|config| config.limits.shutdown = Duration::from_millis(300)).await;
    let _stream = begin_create(&world, &from_pool("hang").to_string()).await;
    world.some_status().await;
    world.shut_down().await;
    assert_eq!(world.writes.deletes.load(Ordering::SeqCst), 1);
    world.nothing_left().await;
}

#[tokio::test]
async fn a_caller_who_hangs_up_leaves_nothing() {
    let world = World::new().await;
    let body = from_pool("hang").to_string();
    let stream = begin_create(&world, &body).await;
    world.some_status().await;
    drop(stream);
    world.nothing_left().await;
    assert_eq!(world.writes.deletes.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_idempotency_key_is_one_sandbox() {
    let world = World::new().await;
    let request = |body: Value| {
        http::Request::builder()
            .method(Method::POST)
            .uri(format!("http://{}/v1/sandboxes", world.address))
            .header("open-sandbox-api-key", KEY)
            .header("idempotency-key", "same")
            .body(axum::body::Body::from(body.to_string()))
            .unwrap()
    };
    let (first, second) = tokio::join!(world.raw(request(from_pool("claim"))), world.raw(request(from_pool("claim"))));
    assert_eq!((first.status, second.status), (StatusCode::ACCEPTED, StatusCode::ACCEPTED));
    assert_eq!(first.json()["id"], second.json()["id"]);
    let mut other = from_pool("claim");
    other["timeout"] = json!(900);
    assert_eq!(world.raw(request(other)).await.code(), "SANDBOX::IDEMPOTENCY_CONFLICT");
    assert_eq!(world.sandboxes().list(&Default::default()).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn an_image_makes_a_pod_of_its_own() {
    let world = World::new().await;
    let body = json!({"image": {"uri": "alpine"}, "entrypoint": ["sleep", "9"], "resourceLimits": {"cpu": "1"}, "metadata": {"play": "claim"}});
    let answer = world.post("/v1/sandboxes", body).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{:?}", answer.bytes);
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    let shown = world.get(&format!("/v1/sandboxes/{id}")).await.json();
    assert_eq!(shown["image"]["uri"], "alpine");
    assert_eq!(shown["entrypoint"], json!(["sleep", "9"]));
    let object = world.sandboxes().get(&id).await.unwrap();
    let template = object.spec.template.unwrap().0;
    assert_eq!(
        template["spec"]["containers"][0]["command"],
        json!(["/opt/opensandbox/execd", "run", "--", "sleep", "9"])
    );
}

#[tokio::test]
async fn pools_are_made_changed_and_deleted() {
    let world = World::new().await;
    let sizes = json!({"bufferMin": 0, "bufferMax": 1, "poolMin": 0, "poolMax": 2});
    let template = json!({"spec": {"containers": [{"name": "main", "image": "x"}]}});
    let body = json!({"name": "mine", "template": template, "capacitySpec": sizes});
    let made = world.post("/v1/pools", body.clone()).await;
    assert_eq!((made.status, made.json()["capacitySpec"].clone()), (StatusCode::CREATED, sizes));
    assert_no_null(&made.json());
    assert_eq!(world.post("/v1/pools", body.clone()).await.code(), "KUBERNETES::POOL_ALREADY_EXISTS");
    let mut wrong = body;
    wrong["template"]["spec"]["containers"][0]["name"] = json!(5);
    assert!(world.post("/v1/pools", wrong).await.message().starts_with("template.spec.containers[0].name: "));
    let bigger = json!({"capacitySpec": {"bufferMin": 1, "bufferMax": 2, "poolMin": 1, "poolMax": 9}});
    assert_eq!(world.send(Method::PUT, "/v1/pools/mine", bigger).await.json()["capacitySpec"]["poolMax"], 9);
    assert_eq!(world.get("/v1/pools/mine").await.json()["capacitySpec"]["poolMax"], 9);
    assert_eq!(world.get("/v1/pools").await.json()["items"].as_array().unwrap().len(), 3);
    assert_eq!(world.send(Method::DELETE, "/v1/pools/mine", None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.get("/v1/pools/mine").await.code(), "KUBERNETES::POOL_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_creates_at_once_are_each_one_write_and_their_own() {
    let world = World::new().await;
    let answers = futures::future::join_all((0..200).map(|_| world.create("claim"))).await;
    let mut ids: Vec<String> = Vec::new();
    for answer in answers {
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{:?}", answer.bytes);
        ids.push(answer.json()["id"].as_str().unwrap().to_owned());
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 200);
    assert_eq!(world.writes.creates.load(Ordering::SeqCst), 200);
    assert_eq!(world.get("/v1/sandboxes?pageSize=1").await.json()["pagination"]["totalItems"], 200);
}

#[tokio::test]
async fn only_what_this_api_made_is_its_own() {
    let world = World::new().await;
    let mut object = api_types::crd::BatchSandbox::new("an-operators", Default::default());
    object.spec.pool_ref = Some("pool".to_owned());
    world.sandboxes().create(&Default::default(), &object).await.unwrap();
    for method in [Method::GET, Method::DELETE] {
        let answer = world.send(method, "/v1/sandboxes/an-operators", None).await;
        assert_eq!(answer.code(), "KUBERNETES::SANDBOX_NOT_FOUND");
    }
    assert_eq!(world.get("/v1/sandboxes").await.json()["pagination"]["totalItems"], 0);
}

#[tokio::test]
async fn events_of_a_sandbox_are_shown() {
    let world = World::new().await;
    let id = world.created().await;
    let event: k8s_openapi::api::core::v1::Event = serde_json::from_value(json!({
        "metadata": {"name": "e", "namespace": "default"}, "type": "Normal", "reason": "Granted", "message": "got a pod",
        "involvedObject": {"kind": "BatchSandbox", "name": id}, "lastTimestamp": "2026-11-23T10:00:00Z"
    }))
    .unwrap();
    let api: kube::Api<k8s_openapi::api::core::v1::Event> = kube::Api::namespaced(world.client.clone(), "default");
    api.create(&Default::default(), &event).await.unwrap();
    let path = format!("/v1/sandboxes/{id}/diagnostics/events");
    let shown = world.get(&format!("{path}?scope=runtime")).await.json();
    assert!(shown["content"].as_str().unwrap().contains("Granted"), "{shown}");
    assert_eq!(
        (&shown["kind"], &shown["delivery"], &shown["truncated"]),
        (&json!("events"), &json!("inline"), &json!(false))
    );
    assert_eq!(world.get(&path).await.headers["deprecation"], "true");
    assert_eq!(world.get(&format!("{path}?scope=network")).await.code(), "DIAGNOSTICS_SCOPE_UNSUPPORTED");
}

#[tokio::test]
async fn a_sandbox_is_explained_also_after_its_end() {
    let world = World::new().await;
    let id = world.created().await;
    let explained = world.get(&format!("/v1/sandboxes/{id}/explain")).await.json();
    assert_no_null(&explained);
    assert_eq!((&explained["source"], &explained["from"]), (&json!("pool"), &json!("pool")));
    assert_eq!(explained["timeline"][0]["name"], "accepted");
    assert_eq!(explained["pool"]["max"], 10);
    assert_eq!(explained["pod"]["name"], format!("pod-of-{id}"));
    assert_eq!(world.get("/v1/sandboxes/nobody/explain").await.code(), "KUBERNETES::SANDBOX_NOT_FOUND");

    let event = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "gone.1"}, "type": "Warning", "reason": "OOMKilled",
        "message": "ate its memory", "involvedObject": {"kind": "BatchSandbox", "name": "gone", "namespace": "default"},
        "lastTimestamp": "2026-11-23T10:00:05Z"
    });
    let events: kube::Api<k8s_openapi::api::core::v1::Event> = kube::Api::default_namespaced(world.client.clone());
    events.create(&Default::default(), &serde_json::from_value(event).unwrap()).await.unwrap();
    let gone = world.get("/v1/sandboxes/gone/explain").await.json();
    assert_eq!(gone["status"]["state"], "Terminated");
    assert_eq!(gone["obituary"]["reason"], "OOMKilled");
}

#[tokio::test]
async fn a_create_that_need_not_wait_is_answered_at_once_and_goes_on() {
    let world = World::new().await;
    let answer = world.post("/v1/sandboxes?wait=0", from_pool("hang")).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let body = answer.json();
    assert_eq!(body["status"]["state"], "Pending");
    assert!(body.get("execd").is_none(), "{body}");
    world.some_status().await;
    let id = body["id"].as_str().unwrap();
    assert_eq!(world.get(&format!("/v1/sandboxes/{id}")).await.status, StatusCode::OK);
    assert!(world.post("/v1/sandboxes?wait=61", from_pool("claim")).await.message().starts_with("wait: "));
}

#[tokio::test]
async fn changes_are_streamed_and_resumed() {
    use futures::StreamExt as _;
    use http_body_util::BodyExt as _;
    let world = World::new().await;
    let id = world.created().await;
    let http = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http::<axum::body::Body>();
    let open = async |last: Option<&str>| {
        let mut request = http::Request::builder().uri(format!("http://{}/v1/sandboxes/{id}/events", world.address));
        request = request.header("open-sandbox-api-key", KEY);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let answer = http.request(request.body(axum::body::Body::empty()).unwrap()).await.unwrap();
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        answer.into_body().into_data_stream()
    };
    let mut stream = open(None).await;
    let next = async |stream: &mut http_body_util::BodyDataStream<hyper::body::Incoming>| {
        let bytes =
            tokio::time::timeout(common::DEADLINE, stream.next()).await.expect("an event in time").unwrap().unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    };
    let first = next(&mut stream).await;
    assert!(first.contains("event: state") && first.contains(r#""state":"Running""#), "{first}");
    let last = first.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    let mut resumed = open(Some(&last)).await;
    world.send(Method::PATCH, &format!("/v1/sandboxes/{id}/metadata"), json!({"team": "x"})).await;
    // Who resumes is not told again what it knows.
    for stream in [&mut stream, &mut resumed] {
        let news = next(stream).await;
        assert!(news.contains(r#""team":"x""#), "{news}");
    }
    world.send(Method::DELETE, &format!("/v1/sandboxes/{id}"), None).await;
    let mut rest = String::new();
    while let Some(Ok(bytes)) = tokio::time::timeout(common::DEADLINE, stream.next()).await.expect("an end in time") {
        rest.push_str(std::str::from_utf8(&bytes).unwrap());
    }
    assert!(rest.contains("event: gone"), "{rest}");
    assert_eq!(world.get(&format!("/v1/sandboxes/{id}/events")).await.code(), "KUBERNETES::SANDBOX_NOT_FOUND");
}
