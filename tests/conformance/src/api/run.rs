//! Sends a suite's requests to one API and gathers the answers.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde_json::{Map, Value, json};

use super::case::{Case, Suite};
use super::normal::normal;

/// No step takes this long.
const DEADLINE: Duration = Duration::from_secs(20);
/// Headers that clients look at.
const HEADERS: [&str; 4] = ["content-type", "warning", "retry-after", "location"];

/// An API to ask.
pub struct Ground {
    /// Its client.
    pub client: Client,
    /// What the namespaces' names end in, so that runs on one cluster do not meet.
    pub tag: String,
}

/// Case by case, in order, what was answered.
pub type Answers = Vec<(String, Value)>;

/// Sends one request. Gives the code, the headers that matter and the body.
async fn ask(client: &Client, case: &Case, saved: &BTreeMap<String, String>) -> anyhow::Result<Value> {
    let sent = tokio::time::timeout(DEADLINE, client.send(request(case, saved)?)).await;
    let response = sent.context("no answer came")??;
    let head = head(&response);
    let (kept, bytes) = match case.events {
        Some(count) => (true, events(response.into_body(), count, client, case, saved).await?),
        None => {
            let whole = tokio::time::timeout(DEADLINE, response.into_body().collect()).await;
            (false, whole.context("the answer took too long")??.to_bytes().to_vec())
        }
    };
    let mut answer = head;
    if kept {
        let lines = bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty());
        let list: Vec<Value> = lines.map(body_of).collect();
        answer.insert("events".into(), list.into());
    } else {
        answer.insert("body".into(), body_of(&bytes));
    }
    Ok(Value::Object(answer))
}

fn body_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned()))
}

fn request(case: &Case, saved: &BTreeMap<String, String>) -> anyhow::Result<http::Request<Body>> {
    let body = match (&case.body, &case.raw, case.bulk) {
        (Some(value), ..) => fill(&value.to_string(), saved),
        (None, Some(text), _) => fill(text, saved),
        (None, None, Some(size)) => json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bulk"}, "data": {"k": "x".repeat(size)},
        })
        .to_string(),
        (None, None, None) => String::new(),
    };
    let mut builder = http::Request::builder().method(case.method.as_str()).uri(fill(&case.path, saved));
    if !body.is_empty() && !case.media.is_empty() {
        builder = builder.header("content-type", &case.media);
    }
    if !case.accept.is_empty() {
        builder = builder.header("accept", &case.accept);
    }
    if !case.headers.contains_key("user-agent") {
        builder = builder.header("user-agent", "conformance/1");
    }
    for (name, value) in &case.headers {
        builder = builder.header(name, value);
    }
    Ok(builder.body(Body::from(body.into_bytes()))?)
}

fn head(response: &http::Response<Body>) -> Map<String, Value> {
    let mut headers = Map::new();
    for name in HEADERS {
        let values: Vec<&str> = response.headers().get_all(name).iter().filter_map(|v| v.to_str().ok()).collect();
        match values.as_slice() {
            [] => {}
            [one] => drop(headers.insert(name.into(), (*one).into())),
            many => drop(headers.insert(name.into(), json!(many))),
        }
    }
    let mut head = Map::new();
    head.insert("code".into(), response.status().as_u16().into());
    head.insert("headers".into(), headers.into());
    head
}

/// Reads a watch's lines, after having sent what is to happen meanwhile.
async fn events(
    body: Body,
    count: usize,
    client: &Client,
    case: &Case,
    saved: &BTreeMap<String, String>,
) -> anyhow::Result<Vec<u8>> {
    for inner in &case.during {
        let response = client.send(request(inner, saved)?).await?;
        if !response.status().is_success() {
            let code = response.status();
            let text = response.into_body().collect().await?.to_bytes();
            bail!("{}: {code} {}", inner.name, String::from_utf8_lossy(&text));
        }
    }
    let mut stream = body.into_data_stream();
    let mut read = Vec::new();
    let lines = |bytes: &[u8]| bytes.iter().filter(|b| **b == b'\n').count();
    let until = Instant::now() + DEADLINE;
    while lines(&read) < count {
        match tokio::time::timeout_at(until.into(), stream.next()).await {
            Ok(Some(piece)) => read.extend_from_slice(&piece?),
            Ok(None) => break,
            Err(_) => bail!("{}: only {} of {count} events came", case.name, lines(&read)),
        }
    }
    // A piece may carry more than was waited for.
    let end = read.iter().enumerate().filter(|(_, b)| **b == b'\n').nth(count.saturating_sub(1)).map(|(at, _)| at);
    read.truncate(end.map_or(read.len(), |at| at + 1));
    Ok(read)
}

/// Puts variables in; longer names first, so that `$NAME` is not taken for `$N`.
fn fill(text: &str, saved: &BTreeMap<String, String>) -> String {
    let mut names: Vec<&String> = saved.keys().collect();
    names.sort_by_key(|n| std::cmp::Reverse(n.len()));
    names.into_iter().fold(text.to_owned(), |text, name| text.replace(&format!("${name}"), &saved[name]))
}

/// Runs a suite in a namespace of its own.
pub async fn run(ground: &Ground, suite: &Suite) -> anyhow::Result<Answers> {
    let namespace = format!("api-{}-{}", suite.name, ground.tag);
    let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    send(&ground.client, "POST", "/api/v1/namespaces", Some(&space)).await?;
    ready(&ground.client, &format!("/api/v1/namespaces/{namespace}/serviceaccounts/default")).await?;
    let mut answers = Answers::new();
    let once = BTreeMap::new();
    let rounds = if suite.each.is_empty() { vec![&once] } else { suite.each.iter().collect() };
    for round in rounds {
        let mut saved = round.clone();
        saved.insert("NS".into(), namespace.clone());
        saved.insert("TAG".into(), ground.tag.clone());
        let tag = round.get("EACH").map(|e| format!("{e}: ")).unwrap_or_default();
        for case in &suite.cases {
            let name = format!("{}/{tag}{}", suite.name, case.name);
            let answer = repeat(&ground.client, case, &saved).await.with_context(|| name.clone())?;
            for (variable, pointer) in &case.save {
                let found = answer["body"].pointer(pointer);
                let text = match found {
                    Some(Value::String(text)) => text.clone(),
                    Some(other) => other.to_string(),
                    None => bail!("{name}: nothing at {pointer} to save: {answer}"),
                };
                saved.insert(variable.clone(), text);
            }
            let mut answer = answer;
            if !case.only.is_empty() {
                let body = answer["body"].take();
                let kept: Map<String, Value> =
                    case.only.iter().map(|p| (p.clone(), body.pointer(p).cloned().unwrap_or(Value::Null))).collect();
                answer["body"] = kept.into();
            }
            answers.push((name, normal(answer, &saved)));
        }
    }
    send(&ground.client, "DELETE", &format!("/api/v1/namespaces/{namespace}"), None).await?;
    Ok(answers)
}

async fn repeat(client: &Client, case: &Case, saved: &BTreeMap<String, String>) -> anyhow::Result<Value> {
    let begun = Instant::now();
    loop {
        let answer = ask(client, case, saved).await?;
        let code = case.until.is_none_or(|code| answer["code"] == code);
        let body = case.until_body.as_ref().is_none_or(|(pointer, text)| {
            answer["body"]
                .pointer(pointer)
                .is_some_and(|v| v.as_str().map_or_else(|| v.to_string(), Into::into) == *text)
        });
        if code && body {
            return Ok(answer);
        }
        if begun.elapsed() > DEADLINE {
            bail!("what was waited for did not happen: {answer}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn send(client: &Client, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<u16> {
    let bytes = body.map(|b| b.to_string().into_bytes()).unwrap_or_default();
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(bytes.into())?;
    Ok(client.send(request).await?.status().as_u16())
}

async fn ready(client: &Client, path: &str) -> anyhow::Result<()> {
    let begun = Instant::now();
    while send(client, "GET", path, None).await? != 200 {
        if begun.elapsed() > DEADLINE {
            bail!("{path} did not come");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Makes the definitions that the suites use and waits until they are served.
pub async fn prepare(ground: &Ground, folder: &Path) -> anyhow::Result<()> {
    for (path, text) in definitions(folder)? {
        let value: Value = super::case::read(&text).with_context(|| path.clone())?;
        let code =
            send(&ground.client, "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", Some(&value))
                .await?;
        if code != 201 && code != 409 {
            bail!("{path}: the definition was refused with {code}");
        }
        let field = |name: &str| value.pointer(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (group, plural) = (field("/spec/group"), field("/spec/names/plural"));
        for version in value.pointer("/spec/versions").and_then(Value::as_array).into_iter().flatten() {
            let version = version["name"].as_str().unwrap_or_default();
            ready(&ground.client, &format!("/apis/{group}/{version}/{plural}")).await?;
        }
    }
    Ok(())
}

/// Removes the definitions.
pub async fn sweep(ground: &Ground, folder: &Path) -> anyhow::Result<()> {
    for (_, text) in definitions(folder)? {
        let value: Value = super::case::read(&text)?;
        let name = value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        send(
            &ground.client,
            "DELETE",
            &format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"),
            None,
        )
        .await?;
    }
    Ok(())
}

fn definitions(folder: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let mut list = Vec::new();
    for entry in std::fs::read_dir(folder.join("definitions"))? {
        let path = entry?.path();
        list.push((path.display().to_string(), std::fs::read_to_string(&path)?));
    }
    list.sort();
    Ok(list)
}
