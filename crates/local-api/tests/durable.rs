//! What was acknowledged is there again: after a close, after SIGKILL, after a torn record.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::io::{BufRead as _, Write as _};
use std::process::{Command, Stdio};

use common::*;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};

const CHILD: &str = "LOCAL_API_TEST_DIRECTORY";

/// A client's worker task ends a moment after the client; until then it holds the store.
async fn reopened(directory: &std::path::Path) -> local_api::Api {
    eventually("release of the directory", || async {
        match local_api::Api::open(directory) {
            Ok(api) => Some(api),
            Err(local_api::OpenError::Locked(_)) => None,
            Err(other) => panic!("{other}"),
        }
    })
    .await
}

#[tokio::test]
async fn reopened_it_goes_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let version = {
        let api = local_api::Api::open(directory.path()).expect("opened");
        let client = api.client("default");
        with_widgets(&client).await;
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
        maps.create(&PostParams::default(), &config("kept", "1")).await.expect("created");
        maps.create(&PostParams::default(), &config("gone", "1")).await.expect("created");
        maps.delete("gone", &DeleteParams::default()).await.expect("deleted");
        widgets(&client, "default")
            .create(&PostParams::default(), &widget("w", serde_json::json!({"size": 1})))
            .await
            .expect("created");
        let locked = local_api::Api::open(directory.path()).err().expect("one process at a time");
        assert!(matches!(locked, local_api::OpenError::Locked(_)), "{locked}");
        api.version()
    };
    let api = reopened(directory.path()).await;
    assert!(api.version() >= version, "versions never go back");
    let client = api.client("default");
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    assert!(maps.get_opt("kept").await.expect("an answer").is_some());
    assert!(maps.get_opt("gone").await.expect("an answer").is_none());
    widgets(&client, "default").get("w").await.expect("the definition is served again");
    // What happened before this process is not remembered, and it says so.
    assert_eq!(watch_refusal(&maps, "1").await, 410);
}

#[tokio::test]
async fn a_torn_record_is_dropped() {
    let directory = tempfile::tempdir().expect("a directory");
    {
        let client = local_api::Api::open(directory.path()).expect("opened").client("default");
        let maps: Api<ConfigMap> = Api::namespaced(client, "default");
        maps.create(&PostParams::default(), &config("whole", "1")).await.expect("created");
    }
    drop(reopened(directory.path()).await);
    let log = directory.path().join("objects.log");
    let mut file = std::fs::OpenOptions::new().append(true).open(&log).expect("the log");
    file.write_all(&[200, 0, 0, 0, 1, 2, 3, 4, 5]).expect("written");
    drop(file);
    let client = reopened(directory.path()).await.client("default");
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    assert!(maps.get_opt("whole").await.expect("an answer").is_some());
    maps.create(&PostParams::default(), &config("more", "1")).await.expect("it goes on");
}

/// The child: writes and says what was acknowledged, until it is killed.
#[tokio::test]
async fn child_writes_until_it_is_killed() {
    let Ok(directory) = std::env::var(CHILD) else { return };
    let client = local_api::Api::open(directory.as_ref()).expect("opened").client("default");
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    for index in 0_u64.. {
        let name = format!("c{index}");
        maps.create(&PostParams::default(), &config(&name, "1")).await.expect("created");
        if index % 3 == 2 {
            maps.delete(&format!("c{}", index - 1), &DeleteParams::default()).await.expect("deleted");
        }
        // One line a write that was acknowledged.
        println!("ACK {index}");
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_sigkill() {
    for round in 1..=3_u64 {
        let directory = tempfile::tempdir().expect("a directory");
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "child_writes_until_it_is_killed", "--nocapture"])
            .env(CHILD, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a child");
        let mut last = None;
        let lines = std::io::BufReader::new(child.stdout.take().expect("its output")).lines();
        let mut killed = false;
        // Its output is read to the end, so that every acknowledgement that it managed to give counts.
        for line in lines {
            let line = line.expect("a line");
            if let Some(index) = line.split("ACK ").nth(1).and_then(|n| n.trim().parse::<u64>().ok()) {
                last = Some(index);
                if index >= 40 * round && !killed {
                    killed = true;
                    child.kill().expect("SIGKILL");
                }
            }
        }
        child.wait().expect("ended");
        let last = last.expect("it wrote something");
        let client = local_api::Api::open(directory.path()).expect("opened after the kill").client("default");
        let maps: Api<ConfigMap> = Api::namespaced(client, "default");
        let there: std::collections::HashSet<String> = maps
            .list(&ListParams::default())
            .await
            .expect("a list")
            .into_iter()
            .filter_map(|o| o.metadata.name)
            .collect();
        for index in 0..=last {
            let deleted = index % 3 == 1 && index < last;
            assert_eq!(there.contains(&format!("c{index}")), !deleted, "c{index} of {last}");
        }
    }
}

fn limits(compact_from: u64) -> local_api::Options {
    local_api::Options { limits: local_api::Limits { compact_from, ..Default::default() }, ..Default::default() }
}

#[tokio::test]
async fn the_log_is_rewritten_when_most_of_it_is_stale() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("objects.log");
    let (version, largest) = {
        let api = local_api::Api::open_with(directory.path(), limits(64 << 10)).expect("opened");
        let maps: Api<ConfigMap> = Api::namespaced(api.client("default"), "default");
        for name in ["kept", "other"] {
            maps.create(&PostParams::default(), &config(name, "0")).await.expect("created");
        }
        let mut largest = 0;
        for round in 0..3_000 {
            let patch = serde_json::json!({"data": {"key": format!("{round}")}});
            maps.patch("kept", &kube::api::PatchParams::default(), &kube::api::Patch::Merge(&patch))
                .await
                .expect("patched");
            largest = largest.max(std::fs::metadata(&log).expect("the log").len());
        }
        // The rewrite is adopted by a later write; there were many.
        (api.version(), largest)
    };
    assert!(largest < 1 << 20, "the log grew to {largest} bytes for two objects");
    let api = reopened(directory.path()).await;
    assert!(api.version() >= version, "versions never go back");
    let maps: Api<ConfigMap> = Api::namespaced(api.client("default"), "default");
    assert_eq!(maps.get("kept").await.expect("there").data.expect("data")["key"], "2999");
    maps.get("other").await.expect("what was not written to is there too");
}

/// A small file system of its own, unmounted when dropped.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "none"])
            .arg(directory.path())
            .stderr(Stdio::null())
            .status();
        if !mounted.is_ok_and(|s| s.success()) {
            println!("skipped: a tmpfs cannot be mounted here (it takes root)");
            return None;
        }
        Some(Self(directory))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_loses_nothing() {
    let Some(disk) = Small::mount() else { return };
    let ballast = disk.0.path().join("ballast");
    std::fs::write(&ballast, vec![0; 300 << 10]).expect("written");
    let directory = disk.0.path().join("api");
    let large = "x".repeat(64 << 10);
    let mut made = Vec::new();
    {
        let client = local_api::Api::open(&directory).expect("opened").client("default");
        let maps: Api<ConfigMap> = Api::namespaced(client, "default");
        let refused = loop {
            let name = format!("c{}", made.len());
            match maps.create(&PostParams::default(), &config(&name, &large)).await {
                Ok(_) => made.push(name),
                Err(error) => break refusal(error),
            }
            assert!(made.len() < 100, "the disk never filled");
        };
        assert_eq!(refused.0, 507, "{refused:?}");
        assert!(refused.2.contains("disk is full, nothing was changed"), "{refused:?}");
        // Reading goes on, and what was refused is not there.
        assert_eq!(maps.list(&ListParams::default()).await.expect("a list").items.len(), made.len());
        // Room again: so do writes.
        std::fs::remove_file(&ballast).expect("removed");
        maps.create(&PostParams::default(), &config("after", &large)).await.expect("created");
        made.push("after".into());
    }
    let client = reopened(&directory).await.client("default");
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    for name in made {
        maps.get(&name).await.expect("what was acknowledged is there");
    }
}
