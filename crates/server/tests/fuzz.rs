//! Schemathesis makes requests out of the OpenAPI document, right and wrong ones, and looks at the answers.
//! Runs where `OPENSANDBOX_SCHEMATHESIS` names the program (`pip install schemathesis`): it needs a Python of its own.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod common;

use std::process::Stdio;
use std::time::Duration;

use common::World;

/// The examples are counted, so this is for a run that hangs.
const LONGEST: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_nothing() {
    let Ok(program) = std::env::var("OPENSANDBOX_SCHEMATHESIS") else {
        println!("skipped: OPENSANDBOX_SCHEMATHESIS names no schemathesis; pip install schemathesis has it");
        return;
    };
    let world = World::with(|config| {
        config.limits.acquisition_timeout = Duration::from_secs(2);
        config.limits.create_timeout = Duration::from_secs(2);
    })
    .await;
    let id = world.created().await;
    let directory = tempfile::tempdir().unwrap();
    let origin = format!("http://{}", world.address);
    let run = tokio::process::Command::new(program)
        .args(["--config-file", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/schemathesis.toml")])
        .args(["run", &format!("{origin}/openapi.json"), "--origin", &origin])
        .args(["--phases", "examples,coverage,fuzzing", "--warnings", "off"])
        // A stream that does not end, and what leads into sandboxes, whose answers are not ours.
        .args(["--exclude-operation-id", "watchSandbox", "--exclude-path-regex", "/proxy/"])
        .env("OPENSANDBOX_ID", &id)
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(LONGEST, run).await.expect("it ends in time").unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
