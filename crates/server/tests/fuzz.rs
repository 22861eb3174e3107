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
    world.created().await;
    // What leads into sandboxes answers as they do, and one stream has no end.
    let public = "^/(docs|health|healthz|readyz|version|openapi.json)$";
    let foreign = format!("/proxy/|{public}");
    let versioned = ["--exclude-path-regex", &foreign, "--exclude-operation-id", "watchSandbox"];
    // The document's own addresses of single paths are not followed, so each mount is a run.
    for (mount, which) in [("/v1", &versioned[..]), ("", &["--include-path-regex", public])] {
        let (succeeded, report) = run(&program, &world, mount, which).await;
        println!("{report}");
        assert!(succeeded, "schemathesis has found something at {mount:?}; its report is above");
    }
}

async fn run(program: &str, world: &World, mount: &str, which: &[&str]) -> (bool, String) {
    let directory = tempfile::tempdir().unwrap();
    let origin = format!("http://{}", world.address);
    let run = tokio::process::Command::new(program)
        .args(["--config-file", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/schemathesis.toml")])
        .args(["run", &format!("{origin}/openapi.json"), "--url", &format!("{origin}{mount}")])
        .args(["--phases", "examples,coverage,fuzzing", "--warnings", "off"])
        .args(which)
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(LONGEST, run).await.expect("it ends in time").unwrap();
    let report = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&report).into_owned())
}
