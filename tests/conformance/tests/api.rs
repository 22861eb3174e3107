//! The embedded API's answers against those of kube-apiserver.
//!
//! Without a cluster the recorded answers are compared. `OPENSANDBOX_CONFORMANCE_KUBECONFIG=FILE` asks a real server
//! instead, `OPENSANDBOX_CONFORMANCE_RECORD=1` with it also writes its answers down, and
//! `OPENSANDBOX_CONFORMANCE_FILTER=TEXT` narrows the suites.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use conformance::api::{self, Answers, Ground, Suite, Table};
use serde_json::Value;

fn variable(name: &str) -> String {
    std::env::var(format!("OPENSANDBOX_CONFORMANCE_{name}")).unwrap_or_default()
}

fn recording(suite: &Suite) -> std::path::PathBuf {
    api::folder().join("answers").join(format!("{}.json", suite.name))
}

/// A real server, when one is named.
async fn real() -> anyhow::Result<Option<Ground>> {
    let path = variable("KUBECONFIG");
    if path.is_empty() {
        return Ok(None);
    }
    let kubeconfig = kube::config::Kubeconfig::read_from(path)?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
    // What the server says first is what counts.
    config.default_retry = false;
    let ground = Ground { client: config.try_into()?, tag: format!("t{}", std::process::id()) };
    api::prepare(&ground, &api::folder()).await?;
    Ok(Some(ground))
}

async fn theirs(real: Option<&Ground>, suite: &Suite) -> anyhow::Result<Answers> {
    let Some(ground) = real else {
        let recorded: BTreeMap<String, Value> = serde_json::from_slice(&std::fs::read(recording(suite))?)?;
        return Ok(recorded.into_iter().collect());
    };
    let answers = api::run(ground, suite).await?;
    if !variable("RECORD").is_empty() {
        let map: BTreeMap<&String, &Value> = answers.iter().map(|(name, answer)| (name, answer)).collect();
        let mut text = serde_json::to_string_pretty(&map)?;
        text.push('\n');
        std::fs::write(recording(suite), text)?;
    }
    Ok(answers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_those_of_kube_apiserver_but_for_what_the_table_lists() -> anyhow::Result<()> {
    let (folder, filter) = (api::folder(), variable("FILTER"));
    let real = real().await?;
    let (mut compared, mut differences) = (0, Vec::new());
    for suite in api::suites(&folder, &filter)? {
        let embedded = Ground { client: local_api::Api::in_memory().client("default"), tag: "embedded".into() };
        api::prepare(&embedded, &folder).await?;
        let ours = api::run(&embedded, &suite).await?;
        let theirs: BTreeMap<String, Value> = theirs(real.as_ref(), &suite).await?.into_iter().collect();
        for (name, ours) in &ours {
            let Some(theirs) = theirs.get(name) else { panic!("{name} has no recorded answer: record it") };
            compared += 1;
            differences.extend(api::compare(name, ours, theirs));
        }
    }
    if let Some(real) = &real {
        api::sweep(real, &folder).await?;
    }
    let total = differences.len();
    let (unexpected, vanished) = Table::read(&folder.join("differences.yaml"))?.judge(differences, filter.is_empty());
    println!("{compared} answers compared, {total} differences, {} of them unexpected", unexpected.len());
    let list: Vec<String> =
        unexpected.iter().map(|d| format!("{}\n    ours   {}\n    theirs {}", d.at, d.ours, d.theirs)).collect();
    assert!(unexpected.is_empty(), "unexpected differences:\n{}", list.join("\n"));
    assert!(vanished.is_empty(), "listed differences that are none any more:\n{}", vanished.join("\n"));
    Ok(())
}
