//! The published Python SDK against the server, with an execd that answers as the SDK needs it.
//! Runs where `OPENSANDBOX_SDK_PYTHON` names a Python that has `opensandbox` 1.1.1.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod common;

use std::process::Stdio;

use axum::Router;
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use common::{DEADLINE, KEY, World};
use http::{HeaderMap, StatusCode};

/// Frames of one command, as OpenSandbox 1.1.1 frames them.
const FRAMES: &str = concat!(
    "{\"type\":\"init\",\"text\":\"cmd-1\",\"timestamp\":1}\n\n",
    "{\"type\":\"stdout\",\"text\":\"hello\",\"timestamp\":2}\n\n",
    "{\"type\":\"execution_complete\",\"execution_time\":5,\"timestamp\":3}\n\n",
);

fn authorised(headers: &HeaderMap) -> bool {
    headers.get("x-execd-access-token").is_some_and(|token| token.len() == 43)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_published_sdk_runs_unchanged() {
    let Ok(python) = std::env::var("OPENSANDBOX_SDK_PYTHON") else {
        println!("skipped: OPENSANDBOX_SDK_PYTHON names no Python with opensandbox==1.1.1");
        return;
    };
    let world = World::new().await;
    let ping = async |headers: HeaderMap| if authorised(&headers) { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
    let command = async |headers: HeaderMap| {
        if !authorised(&headers) {
            return StatusCode::UNAUTHORIZED.into_response();
        }
        ([("content-type", "text/event-stream")], FRAMES).into_response()
    };
    if !world.execd_serves(Router::new().route("/ping", get(ping)).route("/command", post(command))).await {
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/published_sdk.py");
    let run = tokio::process::Command::new(python)
        .args([script, &world.address.to_string(), KEY])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(DEADLINE * 3, run).await.expect("the script ends in time").unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    world.nothing_left().await;
}
