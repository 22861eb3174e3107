//! Commands over the published wire.

mod fake;

use std::time::Duration;

use fake::{Fake, Piece, events};
use futures::{StreamExt, TryStreamExt};
use opensandbox::{Client, Error, ErrorCode, Event, RunCommand, Sandbox};
use serde_json::json;

async fn attached() -> (Fake, Sandbox) {
    let fake = Fake::start().await;
    let sandbox = fake.client().attach("s1");
    (fake, sandbox)
}

#[tokio::test]
async fn a_failing_command_is_an_execution_with_its_code() {
    let (fake, sandbox) = attached().await;
    fake.stream([events(&[
        json!({"type": "init", "timestamp": 1, "text": "e1"}),
        json!({"type": "stdout", "timestamp": 2, "text": "a"}),
        json!({"type": "stdout", "timestamp": 2, "text": "\n"}),
        json!({"type": "stderr", "timestamp": 3, "text": "oops"}),
        json!({"type": "error", "timestamp": 4, "error": {"ename": "CommandExecError", "evalue": "3", "traceback": ["exit status 3"]}}),
    ])]);
    let command =
        RunCommand::argv(["make", "-j2"]).cwd("/src").env("K", "V").timeout(Duration::from_secs(1)).uid(1).gid(2);
    let execution = sandbox.commands().run_with(command).await.unwrap();
    assert_eq!((execution.exit_code, execution.success()), (Some(3), false));
    assert_eq!((execution.stdout_text().as_str(), execution.stderr_text().as_str()), ("a\n", "oops"));
    assert_eq!(execution.error.unwrap().traceback, ["exit status 3"]);
    let body = fake.script(|s| s.bodies["POST /execd/command"].clone());
    assert_eq!(
        body,
        json!({"argv": ["make", "-j2"], "cwd": "/src", "timeout": 1000, "uid": 1, "gid": 2, "envs": {"K": "V"}})
    );
}

#[tokio::test]
async fn the_end_is_the_terminal_event_and_not_the_end_of_the_body() {
    let (fake, sandbox) = attached().await;
    fake.stream([fake::hello(), Piece::Silence]);
    let commands = sandbox.commands();
    let run = commands.run("echo hello");
    let execution =
        tokio::time::timeout(Duration::from_secs(10), run).await.expect("it waited for the end of the body").unwrap();
    assert_eq!(execution.duration, Some(Duration::from_millis(2)));
}

#[tokio::test]
async fn events_come_one_by_one() {
    let (fake, sandbox) = attached().await;
    let sse = "data: {\"type\":\"init\",\"timestamp\":1,\"text\":\"e1\"}\n\ndata: {\"type\":\"stdout\",\"timestamp\":2,\"text\":\"half";
    fake.stream([Piece::Bytes(sse.into()), Piece::Bytes(b" a line\"}\n\n".to_vec()), Piece::Silence]);
    let mut stream = sandbox.commands().stream("x").await.unwrap();
    assert!(matches!(stream.try_next().await.unwrap(), Some(Event::Started { id, .. }) if id == "e1"));
    assert!(matches!(stream.try_next().await.unwrap(), Some(Event::Stdout(line)) if line.text() == "half a line"));
    assert_eq!(stream.id(), Some("e1"));
}

#[tokio::test]
async fn a_cut_stream_is_an_error_that_names_the_execution() {
    let (fake, sandbox) = attached().await;
    let begun = events(&[
        json!({"type": "init", "timestamp": 1, "text": "e1"}),
        json!({"type": "stdout", "timestamp": 2, "text": "a"}),
    ]);
    for end in [vec![begun.clone(), Piece::Cut], vec![begun.clone()]] {
        fake.stream(end);
        let mut stream = sandbox.commands().stream("x").await.unwrap();
        assert!(matches!(stream.next().await, Some(Ok(Event::Started { .. }))));
        assert!(matches!(stream.next().await, Some(Ok(Event::Stdout(_)))));
        fake.cut.notify_one();
        let Some(Err(Error::StreamInterrupted { execution_id, .. })) = stream.next().await else {
            panic!("no interruption")
        };
        assert_eq!(execution_id.as_deref(), Some("e1"));
        assert!(stream.next().await.is_none());
    }
    assert_eq!(
        fake.seen().iter().filter(|r| *r == "POST /execd/command").count(),
        2,
        "a command must not be sent again"
    );
}

#[tokio::test]
async fn a_silent_stream_does_not_hang() {
    let fake = Fake::start().await;
    let client = Client::new(fake.config().stream_idle_timeout(Duration::from_millis(50))).unwrap();
    fake.stream([Piece::Silence]);
    let error = client.attach("s1").commands().run("x").await.unwrap_err();
    assert!(matches!(error, Error::StreamInterrupted { execution_id: None, .. }), "{error}");
}

#[tokio::test]
async fn an_error_after_the_stream_began_keeps_its_code() {
    let (fake, sandbox) = attached().await;
    fake.stream([
        events(&[json!({"type": "init", "timestamp": 1, "text": "e1"})]),
        Piece::Bytes(br#"{"code":"RUNTIME_ERROR","message":"busy"}"#.to_vec()),
    ]);
    let error = sandbox.commands().run("x").await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::RuntimeError));
}

#[tokio::test]
async fn a_background_command_has_no_exit_code_yet() {
    let (fake, sandbox) = attached().await;
    fake.stream([events(&[
        json!({"type": "init", "timestamp": 1, "text": "e1"}),
        json!({"type": "execution_complete", "timestamp": 1}),
    ])]);
    let execution = sandbox.commands().run_with(RunCommand::shell("sleep 9").background()).await.unwrap();
    assert_eq!((execution.id.as_str(), execution.exit_code), ("e1", None));
    let logs = sandbox.commands().logs("e1", 4).await.unwrap();
    assert_eq!((&logs.content[..], logs.cursor), (&b"456789"[..], 10));
    assert_eq!(sandbox.commands().status("e1").await.unwrap().exit_code, Some(2));
    sandbox.commands().interrupt("e1").await.unwrap();
}

#[tokio::test]
async fn a_stale_address_is_looked_up_again() {
    let (fake, sandbox) = attached().await;
    fake.stream([fake::hello()]);
    sandbox.commands().run("x").await.unwrap();
    // Refused before it ran, so the command may be sent again to the new address.
    fake.fail("POST /execd/command", 401, &[], r#"{"code":"INVALID_ACCESS_TOKEN","message":"not the owner's"}"#);
    fake.stream([fake::hello()]);
    assert_eq!(sandbox.commands().run("x").await.unwrap().stdout_text(), "hello");
    let lookups = fake.seen().iter().filter(|r| r.contains("/endpoints/")).count();
    assert_eq!(lookups, 2);

    // The sandbox has ended: the look-up says so.
    fake.fail("POST /execd/command", 401, &[], r#"{"code":"INVALID_ACCESS_TOKEN","message":"not the owner's"}"#);
    fake.fail(
        "GET /v1/sandboxes/s1/endpoints/44772",
        404,
        &[],
        r#"{"code":"KUBERNETES::SANDBOX_NOT_FOUND","message":"no sandbox s1"}"#,
    );
    assert_eq!(sandbox.commands().run("x").await.unwrap_err().code(), Some(ErrorCode::SandboxNotFound));
}

#[tokio::test]
async fn refused_before_it_began_is_a_refusal() {
    let (fake, sandbox) = attached().await;
    fake.fail(
        "POST /execd/command",
        400,
        &[],
        r#"{"code":"INVALID_REQUEST_BODY","message":"working directory does not exist: /x"}"#,
    );
    let error = sandbox.commands().run("x").await.unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), (Some(ErrorCode::InvalidRequestBody), false));
}
