//! Requests and the answers a real kube-apiserver gave to them, compared with ours.
//!
//! `tests/cases/*.json` hold both. `KUBECONFIG=... cargo test -p local-api --test cases -- --ignored record` asks a
//! real server again and writes its answers; the ordinary test needs none.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::path::{Path, PathBuf};

use common::widget_crd;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, PostParams};
use kube::client::Body;
use kube::{Api, Client};
use serde_json::{Value, json};

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut list: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("the cases").map(|e| e.expect("an entry").path()).collect();
    list.retain(|p| p.extension().is_some_and(|e| e == "json"));
    list.sort();
    list
}

fn read(path: &Path) -> Vec<Value> {
    serde_json::from_slice(&std::fs::read(path).expect("readable")).expect("a list of cases")
}

/// Sends one case's request.
async fn ask(client: &Client, namespace: &str, case: &Value) -> Value {
    let text = |key: &str| case.get(key).and_then(Value::as_str).unwrap_or_default().replace("$NS", namespace);
    let body = match case.get("body") {
        Some(value) => value.to_string().replace("$NS", namespace),
        None => text("raw"),
    };
    let mut request = http::Request::builder().method(text("method").as_str()).uri(text("path"));
    let kind = if text("type").is_empty() { "application/json".into() } else { text("type") };
    if !body.is_empty() {
        request = request.header("content-type", kind);
    }
    let accept = if text("accept").is_empty() { "application/json".into() } else { text("accept") };
    let request = request.header("accept", accept).body(Body::from(body.into_bytes())).expect("a request");
    let response = client.send(request).await.expect("an answer");
    let code = response.status().as_u16();
    let bytes = http_body_util::BodyExt::collect(response.into_body()).await.expect("a body").to_bytes();
    let body =
        serde_json::from_slice(&bytes).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
    json!({"code": code, "body": normal(body, namespace)})
}

/// UIDs inside messages.
fn without_uids(text: &str) -> String {
    let is_uid = |word: &str| word.len() == 36 && word.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    let mut words: Vec<&str> = text.split_inclusive(|c: char| !(c.is_ascii_hexdigit() || c == '-')).collect();
    for word in &mut words {
        if is_uid(word.trim_end_matches(|c: char| !(c.is_ascii_hexdigit() || c == '-'))) {
            *word = "*)";
        }
    }
    words.concat()
}

/// Takes out what differs from run to run or is the matter of admission plugins that are not served.
fn normal(mut value: Value, namespace: &str) -> Value {
    fn walk(value: &mut Value, namespace: &str) {
        match value {
            Value::Object(map) => {
                for gone in ["managedFields", "tolerations", "retryAfterSeconds"] {
                    map.remove(gone);
                }
                // Empty is absent; null creation times are an artefact of Go.
                map.retain(|_, v| !v.is_null());
                for (key, child) in map.iter_mut() {
                    match key.as_str() {
                        "uid" | "resourceVersion" | "creationTimestamp" | "deletionTimestamp" if child.is_string() => {
                            *child = "*".into();
                        }
                        _ => walk(child, namespace),
                    }
                }
                // The order in which faults are found is not promised.
                if let Some(Value::Array(causes)) = map.get_mut("causes") {
                    causes.sort_by_key(Value::to_string);
                }
            }
            Value::Array(list) => list.iter_mut().for_each(|v| walk(v, namespace)),
            Value::String(text) => *text = without_uids(&text.replace(namespace, "$NS")),
            _ => {}
        }
    }
    walk(&mut value, namespace);
    value
}

/// Makes a namespace that is ready for pods.
async fn prepare(client: &Client, namespace: &str) {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let _ = crds.create(&PostParams::default(), &widget_crd()).await;
    let space: Namespace = serde_json::from_value(json!({"metadata": {"name": namespace}})).expect("a namespace");
    Api::all(client.clone()).create(&PostParams::default(), &space).await.expect("a namespace of its own");
    common::eventually("the namespace's service account", || async {
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::namespaced(client.clone(), namespace);
        accounts.get_opt("default").await.ok().flatten()
    })
    .await;
    common::eventually("serving of the definition", || async {
        common::widgets(client, namespace).list(&Default::default()).await.ok()
    })
    .await;
}

#[tokio::test]
async fn answers_are_those_of_kube_apiserver() {
    let (mut compared, mut different) = (0, Vec::new());
    for file in files() {
        let client = local_api::Api::in_memory().client("default");
        prepare(&client, "cases-here").await;
        for case in read(&file) {
            let ours = ask(&client, "cases-here", &case).await;
            let Some(theirs) = case.get("answer") else { continue };
            compared += 1;
            let theirs = &normal(theirs.clone(), "cases-here");
            let same = match (case.get("codeOnly"), case.get("differs")) {
                // Where we mean to differ, the case says what we answer instead, and why.
                (_, Some(differs)) => ours["code"] == differs["code"],
                (Some(_), None) => ours["code"] == theirs["code"],
                (None, None) => ours == *theirs,
            };
            if !same {
                let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                different.push(format!("{stem}: {}\n  ours   {ours}\n  theirs {theirs}", case["name"]));
            }
        }
    }
    assert!(compared > 0, "no case has an answer");
    assert!(different.is_empty(), "{} of {compared} answers differ:\n{}", different.len(), different.join("\n"));
}

#[tokio::test]
#[ignore = "asks a real kube-apiserver, named by KUBECONFIG, and rewrites the case files"]
async fn record() {
    let client = Client::try_default().await.expect("KUBECONFIG names a server");
    for (index, file) in files().into_iter().enumerate() {
        let namespace = format!("cases-{index}-{}", std::process::id());
        prepare(&client, &namespace).await;
        let mut cases = read(&file);
        for case in &mut cases {
            let answer = ask(&client, &namespace, case).await;
            case["answer"] = answer;
        }
        let mut text = serde_json::to_string_pretty(&cases).expect("JSON");
        text.push('\n');
        std::fs::write(&file, text).expect("written");
        let spaces: Api<Namespace> = Api::all(client.clone());
        let _ = spaces.delete(&namespace, &DeleteParams::default()).await;
    }
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let _ = crds.delete("widgets.test.example.com", &DeleteParams::default()).await;
}
