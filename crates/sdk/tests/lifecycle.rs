//! Sandboxes over the published wire.

mod fake;

use std::time::Duration;

use fake::Fake;
use futures::TryStreamExt;
use opensandbox::{Client, Error, ErrorCode, ListSandboxes, Sandbox};
use serde_json::json;

#[tokio::test]
async fn a_create_that_names_execd_is_one_round_trip() {
    let fake = Fake::start().await;
    fake.script(|s| s.execd_in_create = true);
    fake.stream([fake::hello()]);
    let sandbox = fake
        .client()
        .sandbox("nginx:latest")
        .pool("agent-pool")
        .env("AGENT_ID", "a")
        .entrypoint(["/bin/sh", "-c", "sleep infinity"])
        .timeout(Duration::from_secs(3600))
        .create()
        .await
        .unwrap();
    assert_eq!(sandbox.warnings(), ["the image is the pool's"]);
    let execution = sandbox.commands().run("echo hello").await.unwrap();
    assert_eq!(
        (execution.id.as_str(), execution.stdout_text().as_str(), execution.exit_code),
        ("e1", "hello", Some(0))
    );
    sandbox.kill().await.unwrap();
    assert_eq!(fake.seen(), ["POST /v1/sandboxes", "POST /execd/command", "DELETE /v1/sandboxes/s1"]);
    let body = fake.script(|s| s.bodies["POST /v1/sandboxes"].clone());
    assert_eq!(
        body,
        json!({"image": {"uri": "nginx:latest"}, "timeout": 3600, "env": {"AGENT_ID": "a"}, "extensions": {"poolRef": "agent-pool"},
            "entrypoint": ["/bin/sh", "-c", "sleep infinity"]})
    );
    // The server's key is not for the sandbox.
    let headers = fake.script(|s| s.headers["POST /execd/command"].clone());
    assert_eq!(headers["x-execd-access-token"], fake::TOKEN);
}

#[tokio::test]
async fn without_execd_in_the_answer_it_is_looked_up_and_awaited() {
    let fake = Fake::start().await;
    let lookup = "GET /v1/sandboxes/s1/endpoints/44772";
    fake.fail(lookup, 404, &[], r#"{"code":"KUBERNETES::POD_IP_NOT_AVAILABLE","message":"not yet"}"#);
    fake.fail("GET /execd/ping", 500, &[], "");
    let sandbox = fake.client().sandbox("nginx").create().await.unwrap();
    assert_eq!(sandbox.id(), "s1");
    assert_eq!(fake.seen(), ["POST /v1/sandboxes", lookup, lookup, "GET /execd/ping", "GET /execd/ping"]);
}

#[tokio::test]
async fn a_sandbox_that_does_not_become_ready_is_killed() {
    let fake = Fake::start().await;
    fake.fail("GET /execd/ping", 401, &[], r#"{"code":"INVALID_ACCESS_TOKEN","message":"no"}"#);
    let error = fake.client().sandbox("nginx").create().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::BadAccessToken));
    assert_eq!(fake.seen().last().unwrap(), "DELETE /v1/sandboxes/s1");

    for _ in 0..200 {
        fake.fail("GET /execd/ping", 500, &[], "");
    }
    let error = fake.client().sandbox("nginx").ready_timeout(Duration::from_millis(50)).create().await.unwrap_err();
    assert!(matches!(error, Error::NotReady { .. }), "{error}");
    assert!(error.is_retryable());
    assert_eq!(fake.seen().last().unwrap(), "DELETE /v1/sandboxes/s1");
}

#[tokio::test]
async fn a_full_pool_is_told_with_the_time_to_wait_and_not_asked_again() {
    let fake = Fake::start().await;
    let body = r#"{"code":"KUBERNETES::POOL_CAPACITY_EXHAUSTED","message":"pool agent-pool is full"}"#;
    fake.fail("POST /v1/sandboxes", 429, &[("retry-after", "7"), ("x-request-id", "r1")], body);
    let error = fake.client().sandbox("nginx").pool("agent-pool").create().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::PoolCapacityExhausted));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    assert_eq!(error.request_id(), Some("r1"));
    assert!(error.is_retryable());
    assert_eq!(error.to_string(), "create sandbox: pool agent-pool is full [KUBERNETES::POOL_CAPACITY_EXHAUSTED]");
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn idempotent_calls_are_repeated_and_others_are_not() {
    let fake = Fake::start().await;
    for _ in 0..2 {
        fake.fail("GET /v1/sandboxes/s1", 503, &[("retry-after", "0")], "<html>busy</html>");
    }
    assert_eq!(fake.client().get("s1").await.unwrap().status.state, "Running");
    assert_eq!(fake.seen().len(), 3);

    fake.fail("GET /v1/sandboxes/s1", 503, &[("retry-after", "600")], "");
    let error = fake.client().get("s1").await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(600)), "a wait beyond the deadline is left to the caller");

    fake.fail("POST /v1/sandboxes", 503, &[], "");
    assert_eq!(fake.client().sandbox("nginx").create().await.unwrap_err().status(), Some(503));
    assert_eq!(fake.seen().iter().filter(|r| r.starts_with("POST")).count(), 1);
}

#[tokio::test]
async fn a_kill_whose_answer_was_lost_has_killed() {
    let fake = Fake::start().await;
    fake.fail("DELETE /v1/sandboxes/s1", 502, &[], "");
    fake.fail("DELETE /v1/sandboxes/s1", 404, &[], r#"{"code":"KUBERNETES::SANDBOX_NOT_FOUND","message":"gone"}"#);
    fake.client().kill("s1").await.unwrap();
    fake.fail("DELETE /v1/sandboxes/s1", 404, &[], r#"{"code":"KUBERNETES::SANDBOX_NOT_FOUND","message":"gone"}"#);
    assert!(fake.client().kill("s1").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn refusals_outside_the_catalogue_are_typed_too() {
    let fake = Fake::start().await;
    fake.fail("GET /v1/sandboxes/s1", 404, &[], r#"{"detail":"Not Found"}"#);
    let error = fake.client().get("s1").await.unwrap_err();
    let refusal = error.api().unwrap();
    assert_eq!((refusal.code.as_str(), refusal.message.as_str()), ("HTTP_404", "Not Found"));
    let wrong_key = Client::new(fake.config().api_key("other")).unwrap();
    assert_eq!(wrong_key.get("s1").await.unwrap_err().code(), Some(ErrorCode::InvalidApiKey));
}

#[tokio::test]
async fn nobody_there_is_a_connection_error_without_a_wait() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let config = opensandbox::ConnectionConfig::new(address.to_string()).retries(0);
    let error = Sandbox::builder("nginx").connection(config).create().await.unwrap_err();
    assert!(matches!(&error, Error::Connection { before_send: true, .. }), "{error:?}");
    assert_eq!(error.to_string(), format!("create sandbox: cannot reach http://{address}"));
}

#[tokio::test]
async fn pages_follow_one_another() {
    let fake = Fake::start().await;
    let all: Vec<_> = fake.client().list_all(ListSandboxes::new().page_size(2)).try_collect().await.unwrap();
    assert_eq!(all.iter().map(|s| s.id.as_str()).collect::<Vec<_>>(), ["s2", "s3", "s4", "s5", "s6", "s7"]);
    assert_eq!(fake.seen().len(), 3);
}

#[tokio::test]
async fn the_other_calls() {
    let fake = Fake::start().await;
    let client = fake.client();
    let sandbox = client.connect("s9").await.unwrap();
    assert!(sandbox.is_healthy().await);
    assert_eq!(sandbox.info().await.unwrap().allocation.unwrap().pool_ref, "agent-pool");
    assert!(sandbox.renew(Duration::from_secs(60)).await.unwrap() > jiff_now());
    assert_eq!(sandbox.endpoint(80).await.unwrap().endpoint, "10.0.0.1:80");
    assert!((sandbox.metrics().await.unwrap().mem_used_mib - 17.25).abs() < f64::EPSILON);
    sandbox.patch_metadata(&[("a".to_owned(), None)].into()).await.unwrap();
    assert_eq!(client.pools().list().await.unwrap()[0].status.as_ref().unwrap().available, 28);
}

fn jiff_now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

#[tokio::test]
async fn a_guarded_sandbox_is_killed_when_it_is_dropped() {
    let fake = Fake::start().await;
    fake.script(|s| s.execd_in_create = true);
    let sandbox = fake.client().sandbox("nginx").kill_on_drop(true).create().await.unwrap();
    let clone = sandbox.clone();
    drop(sandbox);
    assert_eq!(fake.seen().len(), 1, "a handle is left");
    drop(clone);
    tokio::time::timeout(Duration::from_secs(10), async {
        while fake.seen().last().unwrap() != "DELETE /v1/sandboxes/s1" {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_id_is_one_segment_of_the_path() {
    let fake = Fake::start().await;
    let _ = fake.client().get("../pools?x=1").await;
    assert_eq!(fake.seen(), ["GET /v1/sandboxes/..%2Fpools%3Fx%3D1"]);
}

#[tokio::test]
async fn states_are_watched_over_broken_streams_until_the_end() {
    let fake = Fake::start().await;
    let states: Vec<_> = fake.client().watch("s1").map_ok(|info| info.status.state).try_collect().await.unwrap();
    assert_eq!(states, ["Running", "Stopping"]);
    assert_eq!(fake.seen().len(), 2);
    let last = fake.script(|s| s.headers["GET /v1/sandboxes/s1/events"].clone());
    assert_eq!(last["last-event-id"], "1");
}

#[tokio::test]
async fn logs_events_and_explanations_are_had() {
    let fake = Fake::start().await;
    let client = fake.client();
    assert_eq!(client.diagnostic_logs("s1", "container").await.unwrap().content, "logs of s1\n");
    assert_eq!(client.diagnostic_events("s1", "runtime").await.unwrap().scope, "runtime");
    let told = client.explain("s1").await.unwrap();
    assert_eq!(told.waiting.unwrap().what, "PoolFull");
    assert_eq!(told.timeline[2].took_ms, Some(7.5));
}

#[tokio::test]
async fn a_key_of_ones_own_goes_with_the_create() {
    let fake = Fake::start().await;
    fake.script(|s| s.execd_in_create = true);
    fake.client().sandbox("nginx").pool("p").idempotency_key("job-7").create().await.unwrap();
    assert_eq!(fake.script(|s| s.headers["POST /v1/sandboxes"].clone())["idempotency-key"], "job-7");
}
