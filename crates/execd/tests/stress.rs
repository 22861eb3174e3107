//! Much of everything: nothing is lost, nothing is left. `EXECD_STRESS=10` makes it ten times as much.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails should say where")]

mod common;

use common::{DEADLINE, Execd, Run, code};
use futures::future::join_all;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

fn times(count: usize) -> usize {
    count * std::env::var("EXECD_STRESS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Connections that the client of these tests may keep open.
const POOLED: usize = 12;

struct Held {
    descriptors: usize,
    memory: u64,
}

fn held(execd: &Execd) -> Held {
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", execd.pid())).unwrap().count();
    let status = std::fs::read_to_string(format!("/proc/{}/status", execd.pid())).unwrap();
    let memory =
        status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok()).unwrap();
    Held { descriptors, memory }
}

fn zombies(execd: &Execd) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let (state, parent) = (fields.next(), fields.next());
        count += usize::from(state == Some("Z") && parent == Some(&execd.pid().to_string()));
    }
    count
}

/// Waits until the descriptors are back at what they were.
async fn settled(execd: &Execd, before: usize) {
    let back = async {
        while held(execd).descriptors > before || zombies(execd) > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let done = tokio::time::timeout(DEADLINE, back).await;
    assert!(done.is_ok(), "{} descriptors, {before} before, {} zombies", held(execd).descriptors, zombies(execd));
}

#[tokio::test]
async fn a_thousand_commands_leave_nothing() {
    let execd = Execd::open();
    let round = async |count: usize| {
        for _ in 0..count / 10 {
            let some = join_all((0..10).map(|_| execd.shell("echo out; echo err >&2; exit 3"))).await;
            for run in some {
                assert_eq!((run.stdout(), run.stderr(), run.exit()), (vec!["out"], vec!["err"], "3"));
            }
        }
    };
    // As many as are remembered, so that the memory has its size.
    round(1000).await;
    let before = held(&execd);
    round(times(1000)).await;
    settled(&execd, before.descriptors + POOLED).await;
    let after = held(&execd).memory;
    assert!(after <= before.memory + before.memory / 20 + 512, "{after} KiB, {} KiB before", before.memory);
}

#[tokio::test]
async fn floods_come_whole() {
    let execd = Execd::open();
    execd.shell("true").await;
    let before = held(&execd).descriptors;
    for _ in 0..times(10) {
        let floods = join_all((0..4).map(|_| execd.shell("seq 1 30000; seq 1 3000 >&2"))).await;
        for run in floods {
            assert_eq!((run.exit(), run.stdout().len(), run.stderr().len()), ("0", 30_000, 3_000));
            assert!(run.stdout().iter().enumerate().all(|(at, line)| *line == (at + 1).to_string()));
        }
    }
    settled(&execd, before + POOLED).await;
}

#[tokio::test]
async fn connections_cut_at_random_places_leave_nothing() {
    let execd = Execd::open();
    execd.shell("true").await;
    let before = held(&execd).descriptors;
    for number in 0..times(100) {
        let mut answer = execd.post("/command", &json!({"command": "seq 1 20000"})).await;
        let (mut seen, limit) = (0, number * 7919 % 300_000);
        while seen < limit {
            let Some(bytes) = answer.chunk().await.unwrap() else { break };
            seen += bytes.len();
        }
    }
    settled(&execd, before + POOLED).await;
    assert_eq!(execd.get("/command?running=true").await.json::<Value>().await.unwrap(), json!([]));
}

#[tokio::test]
async fn terminals_leave_nothing() {
    let execd = Execd::open();
    execd.shell("true").await;
    let before = held(&execd).descriptors;
    for _ in 0..times(2) {
        let each = join_all((0..10).map(|number| {
            let execd = &execd;
            async move {
                let made: Value = execd.post("/pty", &json!({})).await.json().await.unwrap();
                let id = made["session_id"].as_str().unwrap().to_owned();
                let url = format!("ws://127.0.0.1:{}/pty/{id}/ws", execd.port);
                let mut socket: Socket = tokio_tungstenite::connect_async(url).await.unwrap().0;
                let line = format!("\0echo number-$(({number}+1000))\n");
                socket.send(Message::Binary(line.into_bytes().into())).await.unwrap();
                let (mut seen, want) = (Vec::new(), format!("number-{}", number + 1000));
                while !String::from_utf8_lossy(&seen).contains(&want) {
                    if let Message::Binary(frame) = socket.next().await.unwrap().unwrap() {
                        seen.extend_from_slice(&frame);
                    }
                }
                let gone = execd.client.delete(execd.url(&format!("/pty/{id}"))).send().await.unwrap();
                assert_eq!(gone.status(), 200);
            }
        }));
        tokio::time::timeout(DEADLINE, each).await.unwrap();
    }
    settled(&execd, before + POOLED).await;
}

#[tokio::test]
async fn where_no_descriptors_are_left_it_says_so_and_recovers() {
    let execd = Execd::open();
    let limit = |soft: u64| {
        let limit = nix::libc::rlimit { rlim_cur: soft, rlim_max: 65_536 };
        let pid = execd.pid().cast_signed();
        #[expect(unsafe_code, reason = "no safe wrapper sets another process's limits")]
        // SAFETY: the call reads the struct it is given.
        let done = unsafe { nix::libc::prlimit(pid, nix::libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut()) };
        done == 0
    };
    let used = held(&execd).descriptors as u64;
    if !limit(used + 4) {
        eprintln!("skipped: cannot set the limits of another process");
        return;
    }
    let run = execd.shell("echo x").await;
    assert_ne!(run.exit(), "0");
    assert!(run.traceback()[0].contains("Too many open files"), "{:?}", run.traceback());
    assert!(limit(4096));
    assert_eq!(execd.shell("echo x").await.stdout(), ["x"]);
}

#[tokio::test]
async fn every_route_refuses_what_it_cannot_use_in_one_form() {
    let execd = Execd::open();
    let routes: &[(&str, &[&str])] = &[
        ("/ping", &["GET"]),
        ("/command", &["GET", "POST", "DELETE"]),
        ("/command/status/x", &["GET"]),
        ("/command/x/logs", &["GET"]),
        ("/command/x/output", &["GET"]),
        ("/command/x/stdin", &["POST"]),
        ("/session", &["GET", "POST"]),
        ("/session/x", &["GET", "DELETE"]),
        ("/session/x/run", &["POST"]),
        ("/pty", &["GET", "POST"]),
        ("/pty/x", &["GET", "DELETE"]),
        ("/pty/x/ws", &["GET"]),
        ("/files", &["DELETE"]),
        ("/files/info", &["GET"]),
        ("/files/permissions", &["POST"]),
        ("/files/mv", &["POST"]),
        ("/files/search", &["GET"]),
        ("/files/replace", &["POST"]),
        ("/files/upload", &["POST"]),
        ("/files/download", &["GET"]),
        ("/files/checksum", &["GET"]),
        ("/files/watch", &["GET"]),
        ("/directories", &["POST", "DELETE"]),
        ("/directories/list", &["GET"]),
        ("/directories/archive", &["GET", "POST"]),
        ("/metrics", &["GET"]),
        ("/metrics/watch", &["GET"]),
        ("/metrics/prometheus", &["GET"]),
        ("/ports", &["GET"]),
        ("/ports/watch", &["GET"]),
        ("/v1/claim", &["GET", "POST"]),
        ("/v1/claim/entrypoint", &["GET"]),
        ("/v1/tasks", &["POST"]),
        ("/v1/tasks/x", &["GET", "DELETE"]),
    ];
    let bodies = [
        "",
        "{",
        "[]",
        "5",
        "\"x\"",
        "[1]",
        "[[]]",
        "{\"command\":[]}",
        "{\"cwd\":{}}",
        "{\"/x\":5}",
        "[{\"src\":1}]",
        "\u{0}",
        "{\"a\":{\"old\":1}}",
    ];
    let before = held(&execd).descriptors;
    for (path, verbs) in routes {
        for verb in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let method: reqwest::Method = verb.parse().unwrap();
            if !verbs.contains(&verb) {
                let answer = execd.client.request(method, execd.url(path)).send().await.unwrap();
                assert_eq!(code(answer).await, (405, "METHOD_NOT_ALLOWED".into()), "{verb} {path}");
                continue;
            }
            if verb != "POST" {
                continue;
            }
            for body in bodies {
                let answer = execd.client.request(method.clone(), execd.url(path)).body(body).send().await.unwrap();
                let status = answer.status().as_u16();
                // An empty map or list of things to do is done; an empty session or terminal may be made.
                if !matches!(status, 200 | 201) {
                    let (status, _) = code(answer).await;
                    assert!((400..500).contains(&status), "{verb} {path} {body:?}: {status}");
                }
            }
            let huge = execd.client.request(method.clone(), execd.url(path)).body("x".repeat(5 << 20)).send().await;
            if let Ok(answer) = huge {
                assert!((400..500).contains(&code(answer).await.0), "{path}");
            }
        }
        let odd = [
            "?path=%FF",
            "?depth=x&path=/",
            "?path=%00",
            "?offset=-1&path=/etc/passwd",
            "?cursor=-1",
            "?since=x",
            "?wait=x",
        ];
        for query in odd.iter().filter(|_| verbs.contains(&"GET") && !path.ends_with("/watch")) {
            let answer = execd.get(&format!("{path}{query}")).await;
            if answer.status().as_u16() >= 400 {
                assert!(code(answer).await.0 < 500, "{path}{query}");
            }
        }
    }
    for session in execd.get("/session").await.json::<Vec<Value>>().await.unwrap() {
        let id = session["session_id"].as_str().unwrap().to_owned();
        execd.client.delete(execd.url(&format!("/session/{id}"))).send().await.unwrap();
    }
    for pty in execd.get("/pty").await.json::<Vec<Value>>().await.unwrap() {
        let id = pty["session_id"].as_str().unwrap().to_owned();
        execd.client.delete(execd.url(&format!("/pty/{id}"))).send().await.unwrap();
    }
    settled(&execd, before + POOLED).await;
    let run: Run = execd.shell("echo fine").await;
    assert_eq!(run.stdout(), ["fine"]);
}
