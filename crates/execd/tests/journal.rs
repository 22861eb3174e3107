//! The journal over the wire: whatever is cut, the bytes a client gets are those that were written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails should say where")]

mod common;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::{DEADLINE, Execd, Run, code, eventually};
use serde_json::{Value, json};

/// Events of a stream that may be cut anywhere: whole ones only.
fn whole_events(bytes: &[u8]) -> Vec<Value> {
    let end = bytes.windows(2).rposition(|w| w == b"\n\n").map_or(0, |at| at + 2);
    let text = std::str::from_utf8(&bytes[..end]).unwrap();
    text.split("\n\n").filter(|frame| !frame.is_empty()).map(|frame| serde_json::from_str(frame).unwrap()).collect()
}

fn is_output(event: &Value) -> bool {
    event["type"] == "stdout" || event["type"] == "stderr"
}

fn pairs(events: &[Value]) -> Vec<(String, String)> {
    let text = |event: &Value, key: &str| event[key].as_str().unwrap().to_owned();
    events.iter().filter(|e| is_output(e)).map(|e| (text(e, "type"), text(e, "text"))).collect()
}

#[tokio::test]
async fn a_stream_that_is_cut_anywhere_goes_on_without_loss_or_repeat() {
    let execd = Execd::open();
    let command =
        "for i in 1 2 3 4 5 6 7 8 9; do printf \"é$i\"; echo \"e$i\" >&2; printf 'x\\r\\n\\n'; done; printf last";
    let whole = execd.raw(&json!({"command": command})).await;
    let run = Run::of(&whole);
    let want = |kind: &str| -> Vec<String> {
        pairs(&whole_events(&whole)).into_iter().filter(|(k, _)| k == kind).map(|(_, text)| text).collect()
    };
    for cut in 0..whole.len() {
        let mut got = whole_events(&whole[..cut]);
        let cursor = got.iter().rev().find_map(|event| event["cursor"].as_str()).unwrap_or("0").to_owned();
        // Every fiftieth through the wire's other form.
        let request = execd.client.get(execd.url(&format!("/command/{}/output", run.id)));
        let request =
            if cut % 2 == 0 { request.header("Last-Event-ID", cursor) } else { request.query(&[("offset", cursor)]) };
        if cut % 7 != 0 {
            continue;
        }
        let rest = request.send().await.unwrap().bytes().await.unwrap();
        assert_eq!(Run::of(&rest).id, run.id);
        got.extend(whole_events(&rest));
        for kind in ["stdout", "stderr"] {
            let texts: Vec<String> = pairs(&got).into_iter().filter(|(k, _)| k == kind).map(|(_, text)| text).collect();
            assert_eq!(texts, want(kind), "cut at {cut}");
        }
    }
}

#[tokio::test]
async fn cuts_at_random_places_while_the_command_writes() {
    let execd = Execd::open();
    let total = 40_000u32;
    let command = format!("i=0; while [ $i -lt {total} ]; do echo line $i; i=$((i+1)); done");
    let mut seed = 7u64;
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(seed >> 40).unwrap()
    };
    let mut answer = execd.post("/command", &json!({"command": command})).await;
    let (mut lines, mut id, mut cuts) = (Vec::new(), String::new(), 0);
    loop {
        let (mut seen, limit) = (Vec::new(), 200 + random() % 60_000);
        let mut ended = false;
        while seen.len() < limit {
            match answer.chunk().await.unwrap() {
                Some(bytes) => seen.extend_from_slice(&bytes),
                None => {
                    ended = true;
                    break;
                }
            }
        }
        if !ended {
            seen.truncate(limit);
        }
        let events = whole_events(&seen);
        if let Some(init) = events.first().filter(|e| e["type"] == "init") {
            id = init["text"].as_str().unwrap().to_owned();
        }
        lines.extend(pairs(&events).into_iter().map(|(_, text)| text));
        if ended {
            break;
        }
        let from = events.iter().rev().find_map(|e| e["cursor"].as_str().map(str::to_owned));
        let from = from.unwrap_or_else(|| CURSOR.with_borrow(Clone::clone));
        CURSOR.set(from.clone());
        drop(answer);
        cuts += 1;
        answer = execd.get(&format!("/command/{id}/output?offset={from}")).await;
    }
    let want: Vec<String> = (0..total).map(|i| format!("line {i}")).collect();
    assert!(lines == want, "{} lines, {cuts} cuts", lines.len());
    assert!(cuts > 3, "{cuts}");
}

thread_local! {
    static CURSOR: std::cell::RefCell<String> = std::cell::RefCell::new("0".to_owned());
}

#[tokio::test]
async fn binary_survives() {
    let execd = Execd::open();
    let file = execd.path("bin");
    let bytes: Vec<u8> = (0..300_000u32).map(|i| u8::try_from(i.wrapping_mul(2_654_435_761) >> 24).unwrap()).collect();
    std::fs::write(&file, &bytes).unwrap();
    let answer = execd.post("/command?encoding=base64", &json!({"command": format!("cat {}", file.display())})).await;
    let body = answer.bytes().await.unwrap();
    let events = whole_events(&body);
    let decode = |events: &[Value]| -> Vec<u8> {
        events
            .iter()
            .filter(|e| is_output(e))
            .flat_map(|e| STANDARD.decode(e["text"].as_str().unwrap()).unwrap())
            .collect()
    };
    assert!(decode(&events) == bytes);
    let id = events[0]["text"].as_str().unwrap();
    let raw = execd.get(&format!("/command/{id}/output?encoding=raw&offset=1000")).await;
    assert_eq!(raw.headers()["content-type"], "application/octet-stream");
    assert!(raw.bytes().await.unwrap() == bytes[1000..]);
    let rest = execd.get(&format!("/command/{id}/output?encoding=base64&offset=299990")).await.bytes().await.unwrap();
    assert!(decode(&whole_events(&rest)) == bytes[299_990..]);
}

#[tokio::test]
async fn characters_are_whole_in_logs_and_streams() {
    let execd = Execd::open();
    let go = execd.path("go");
    nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let command = format!("printf 'a\\342\\202'; read x < {}; printf '\\254b'", go.display());
    let run = execd.run(&json!({"command": command, "background": true})).await;
    let log = async |cursor: u64| {
        let answer = execd.get(&format!("/command/{}/logs?cursor={cursor}", run.id)).await;
        let next = answer.headers()["EXECD-COMMANDS-TAIL-CURSOR"].to_str().unwrap().to_owned();
        (answer.bytes().await.unwrap(), next.parse::<u64>().unwrap())
    };
    let first = async {
        loop {
            let (bytes, next) = log(0).await;
            if !bytes.is_empty() {
                return (bytes, next);
            }
        }
    };
    let (bytes, next) = tokio::time::timeout(DEADLINE, first).await.unwrap();
    assert_eq!((&bytes[..], next), (&b"a"[..], 1));
    tokio::fs::write(&go, "x\n").await.unwrap();
    let ended = async { while execd.get(&format!("/command/{}/output", run.id)).await.bytes().await.is_err() {} };
    tokio::time::timeout(DEADLINE, ended).await.unwrap();
    assert_eq!(log(next).await, ("€b".as_bytes().into(), 5));
}

#[tokio::test]
async fn a_prompt_without_a_line_end_is_shown() {
    let execd = Execd::open();
    let answer = execd
        .post("/command", &json!({"command": "printf 'name? '; read x; echo \"hello $x\"", "stdin_open": true}))
        .await;
    let mut answer = answer;
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("name? ") {
        seen.extend_from_slice(&tokio::time::timeout(DEADLINE, answer.chunk()).await.unwrap().unwrap().unwrap());
    }
    let events = whole_events(&seen);
    let id = events[0]["text"].as_str().unwrap();
    assert_eq!(events.last().unwrap()["partial"], true);
    let url = execd.url(&format!("/command/{id}/stdin?end=true"));
    assert_eq!(execd.client.post(&url).body("you\n").send().await.unwrap().status(), 200);
    while let Some(bytes) = answer.chunk().await.unwrap() {
        seen.extend_from_slice(&bytes);
    }
    assert_eq!(Run::of(&seen).stdout(), ["name? ", "hello you"]);
    assert_eq!(code(execd.client.post(&url).body("x").send().await.unwrap()).await, (409, "STDIN_CLOSED".into()));
}

#[tokio::test]
async fn a_gap_is_an_event_with_its_size() {
    let execd = Execd::with(&[("EXECD_JOURNAL_EXECUTION", "262144"), ("EXECD_JOURNAL_DISK", "0")]);
    let done = execd.path("done");
    let command = format!("seq 1000000 1200000; echo ended > {}", done.display());
    let run = execd.run(&json!({"command": command, "background": true})).await;
    eventually(&done, "ended\n").await;
    let body = execd.get(&format!("/command/{}/output", run.id)).await.bytes().await.unwrap();
    let events = whole_events(&body);
    let gap = events.iter().find(|e| e["type"] == "gap").expect("an explicit gap");
    assert!(gap.get("text").is_none());
    let (lost, total) = (gap["bytes"].as_u64().unwrap(), 200_001 * 8);
    let told: usize = pairs(&events).iter().map(|(_, text)| text.len() + 1).sum();
    assert_eq!((gap["offset"].as_u64(), lost + told as u64), (Some(0), total));
    let last = events.last().unwrap();
    assert_eq!((&last["error"]["ename"], &last["error"]["evalue"]), (&json!("OutputLost"), &json!("0")));
    let logs = execd.get(&format!("/command/{}/logs?cursor=5", run.id)).await;
    assert_eq!(logs.headers()["execd-commands-lost-bytes"].to_str().unwrap(), (lost - 5).to_string());
}

#[tokio::test]
async fn output_that_memory_does_not_hold_is_all_there() {
    let execd = Execd::with(&[("EXECD_JOURNAL_MEMORY", "2097152")]);
    let done = execd.path("done");
    let command = format!("seq 1 6000000; echo ended > {}", done.display());
    let run = execd.run(&json!({"command": command, "background": true})).await;
    eventually(&done, "ended\n").await;
    let mut raw = execd.get(&format!("/command/{}/output?encoding=raw", run.id)).await;
    let (mut count, mut lines) = (0usize, 0usize);
    while let Some(bytes) = raw.chunk().await.unwrap() {
        count += bytes.len();
        lines += bytes.iter().filter(|b| **b == b'\n').count();
    }
    assert_eq!((count, lines), (46_888_896, 6_000_000));
}

#[tokio::test]
async fn places_and_forms_that_are_none() {
    let execd = Execd::open();
    let run = execd.shell("echo abc").await;
    for (query, want) in [
        ("offset=x", 400),
        ("offset=-1", 400),
        ("offset=1,2,3", 400),
        ("offset=5", 400),
        ("encoding=hex", 400),
        ("format=xml", 400),
        ("offset=4", 200),
        ("offset=4,4", 200),
        ("format=sse", 200),
    ] {
        assert_eq!(execd.get(&format!("/command/{}/output?{query}", run.id)).await.status(), want, "{query}");
    }
    let sse = execd.get(&format!("/command/{}/output?format=sse", run.id)).await.text().await.unwrap();
    assert!(
        sse.starts_with("data: {\"type\":\"init\"") && sse.contains("\n\nid: 4\ndata: {\"type\":\"stdout\""),
        "{sse}"
    );
    assert_eq!(code(execd.get("/command/none/output").await).await, (404, "COMMAND_NOT_FOUND".into()));
}

#[tokio::test]
async fn ended_commands_are_forgotten_in_time() {
    let execd = Execd::with(&[("EXECD_JOURNAL_KEEP", "50ms")]);
    let run = execd.shell("echo x").await;
    let forgotten = async {
        while execd.get(&format!("/command/status/{}", run.id)).await.status() != 404 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, forgotten).await.unwrap();
    assert_eq!(execd.get("/command").await.json::<Value>().await.unwrap(), json!([]));
}
