//! SIGKILL of the daemon while it works. What is promised: whoever is connected learns at once that the stream
//! broke off and never sees a false end; the daemon that comes next ends what was left running, knows nothing
//! of the former output and says so, and works.

use std::time::Instant;

use serde_json::json;

use crate::common::{Execd, alive, code, eventually};
use crate::held::{Outcome, children};

pub async fn crashes(times: usize) -> Outcome {
    let begun = Instant::now();
    let mut execd = Execd::open();
    for number in 0..times {
        execd = crash(execd, number).await;
    }
    assert_eq!(children(&execd), (0, 0));
    Outcome { what: "SIGKILL of the daemon while commands run", times, took: begun.elapsed(), held: None }
}

async fn crash(execd: Execd, number: usize) -> Execd {
    let pids = execd.path("pids");
    let _ = std::fs::remove_file(&pids);
    // The leader, a child in its group, and one that has outlived an ended command and belongs to nobody.
    let kept = execd.shell("sleep 600 >/dev/null 2>&1 & echo $!").await;
    let kept: i32 = kept.stdout()[0].parse().unwrap();
    let command = format!("sleep 601 & echo $$ $! > {}; echo begun; wait", pids.display());
    let mut answer = execd.post("/command", &json!({"command": command, "timeout": 600_000})).await;
    let (mut seen, mut id) = (String::new(), String::new());
    while !seen.contains("begun") {
        seen.push_str(std::str::from_utf8(&answer.chunk().await.unwrap().unwrap()).unwrap());
        if let Some((_, rest)) = seen.split_once("\"text\":\"").filter(|_| id.is_empty()) {
            id = rest[..32].to_owned();
        }
    }
    let pids: Vec<i32> =
        std::fs::read_to_string(&pids).unwrap().split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    let session: serde_json::Value = execd.post("/session", &json!({})).await.json().await.unwrap();
    let session = session["session_id"].as_str().unwrap().to_owned();
    assert_eq!(execd.post(&format!("/session/{session}/run"), &json!({"command": "true"})).await.status(), 200);

    let execd = execd.crash_and_restart(&[]);
    let broken = loop {
        match answer.chunk().await {
            Ok(Some(bytes)) => seen.push_str(std::str::from_utf8(&bytes).unwrap()),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(broken, "crash {number}: the stream ends as if it were whole: {seen}");
    assert!(!seen.contains("execution_complete") && !seen.contains("\"error\""), "{seen}");
    for pid in pids {
        gone(pid).await;
    }
    assert!(alive(kept), "what outlived its command lives on");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(kept), nix::sys::signal::Signal::SIGKILL).unwrap();
    for path in [format!("/command/{id}/output"), format!("/command/status/{id}"), format!("/session/{session}")] {
        assert_eq!(code(execd.get(&path).await).await.0, 404, "{path}");
    }
    assert_eq!(execd.shell("echo again").await.stdout(), ["again"]);
    execd
}

/// Killed by the next daemon, and reaped by whoever inherited it.
async fn gone(pid: i32) {
    let gone = async {
        while alive(pid) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(crate::common::DEADLINE, gone).await.expect("what it left running is ended");
}

#[tokio::test]
async fn a_killed_daemon_leaves_nothing_running() {
    crashes(3).await;
}

#[tokio::test]
async fn two_daemons_with_one_directory_leave_each_other_alone() {
    let first = Execd::open();
    let done = first.path("done");
    let command = format!("sleep 0.5; echo done > {}", done.display());
    first.run(&json!({"command": command, "background": true})).await;
    let state = first.path("state");
    let second = Execd::with(&[("OPENSANDBOX_STATE_DIR", state.to_str().unwrap())]);
    assert_eq!(second.shell("echo x").await.stdout(), ["x"]);
    eventually(&done, "done\n").await;
}
