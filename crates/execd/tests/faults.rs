//! What OpenSandbox 1.1.1's execd is known to get wrong and no client depends on; each of these fails there.
//! The design note on execd lists all of them with their tests; here are those that no other file holds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails should say where")]

mod common;

use std::time::Duration;

use common::{DEADLINE, Execd, Run};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

async fn made(execd: &Execd, path: &str, body: &Value) -> String {
    let made: Value = execd.post(path, body).await.json().await.unwrap();
    made["session_id"].as_str().unwrap().to_owned()
}

/// Types into a terminal until it has shown a text.
async fn typed(execd: &Execd, id: &str, keys: &str, want: &str) -> String {
    let url = format!("ws://127.0.0.1:{}/pty/{id}/ws", execd.port);
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    socket.send(Message::Binary(format!("\0{keys}").into_bytes().into())).await.unwrap();
    let seen = async {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(want) {
            if let Message::Binary(frame) = socket.next().await.unwrap().unwrap() {
                seen.extend_from_slice(&frame[1..]);
            }
        }
        String::from_utf8_lossy(&seen).into_owned()
    };
    tokio::time::timeout(DEADLINE, seen).await.unwrap()
}

#[tokio::test]
async fn no_file_of_ours_lies_where_the_sandbox_can_touch_it() {
    let dir = tempfile::tempdir().unwrap();
    let tmp = dir.path().to_str().unwrap();
    let execd = Execd::with(&[("TMPDIR", tmp)]);
    execd.shell("echo x; echo y >&2").await;
    execd.run(&json!({"command": "seq 1 100000", "background": true})).await;
    let session = made(&execd, "/session", &json!({"envs": {"SECRET": "s"}})).await;
    execd
        .post(&format!("/session/{session}/run"), &json!({"command": "export A=1; false"}))
        .await
        .bytes()
        .await
        .unwrap();
    let pty = made(&execd, "/pty", &json!({})).await;
    typed(&execd, &pty, "echo o''k\n", "ok").await;
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "while things run");
}

#[tokio::test]
async fn a_program_that_cannot_start_leaves_no_descriptor() {
    let execd = Execd::open();
    let held = || std::fs::read_dir(format!("/proc/{}/fd", execd.pid())).unwrap().count();
    let one = async |background: bool| {
        let run = execd.run(&json!({"argv": ["/no/such/program"], "stdin": "x", "background": background})).await;
        assert_eq!(run.exit(), "127");
    };
    one(true).await;
    let before = held();
    for number in 0..100 {
        one(number % 2 == 0).await;
    }
    assert!(held() <= before, "{} descriptors, {before} before", held());
}

#[tokio::test]
async fn a_silent_command_pings_and_a_short_one_tells_its_time() {
    let execd = Execd::open();
    let silent = execd.shell("sleep 3.3").await;
    assert!(silent.events.iter().any(|event| event.text.as_deref() == Some("pong")), "{:?}", silent.events);
    let raw = execd.raw(&json!({"command": ":"})).await;
    let last: Value = serde_json::from_slice(raw.trim_ascii_end().rsplit(|b| *b == b'\n').next().unwrap()).unwrap();
    assert!(last["execution_time"].is_u64(), "also where it is 0: {last}");
}

#[tokio::test]
async fn what_a_session_prints_is_output_and_nothing_else() {
    let execd = Execd::open();
    let id = made(&execd, "/session", &json!({"cwd": "/usr"})).await;
    let run = async |command: &str| {
        let answer = execd.post(&format!("/session/{id}/run"), &json!({"command": command})).await;
        Run::of(&answer.bytes().await.unwrap())
    };
    let lines = ["__ENV_DUMP_START__", "declare -x FAKE=\"1\"", "__ENV_DUMP_END__", "__PWD__:/tmp", "__EXIT_CODE__:7"];
    let spoof = run(&format!("printf '%s\\n' {}", lines.map(|line| format!("'{line}'")).join(" "))).await;
    assert_eq!((spoof.stdout(), spoof.exit()), (lines.to_vec(), "0"));
    assert_eq!(run("pwd; echo \"[$FAKE]\"").await.stdout(), ["/usr", "[]"]);
}

#[tokio::test]
async fn a_terminal_has_a_kind_and_the_sandboxes_variables_and_both_expire() {
    let execd = Execd::with(&[("EXECD_SESSION_IDLE", "1s")]);
    std::fs::write(execd.path("envs"), "FROM_FILE=value\n").unwrap();
    let pty = made(&execd, "/pty", &json!({})).await;
    let seen = typed(&execd, &pty, "echo \"<$TERM|$FROM_FILE>\"\n", "|value>").await;
    assert!(!seen.contains("<|value>"), "TERM is set: {seen}");
    let session = made(&execd, "/session", &json!({})).await;
    for path in [format!("/pty/{pty}"), format!("/session/{session}")] {
        let gone = async {
            while execd.get(&path).await.status() != 404 {
                // Asking is no use: it does not keep it.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(DEADLINE, gone).await.unwrap_or_else(|_| panic!("{path} never expires"));
    }
}

#[tokio::test]
async fn searches_and_moves_that_stumble_over_nothing() {
    let execd = Execd::open();
    let root = execd.path("root");
    std::fs::create_dir_all(root.join("sub")).unwrap();
    for name in ["a!b.txt", "c.txt", "sub/d.txt", "$HOME.txt"] {
        std::fs::write(root.join(name), "x").unwrap();
    }
    std::os::unix::fs::symlink("/no/such", root.join("dangling")).unwrap();
    std::os::unix::fs::symlink(&root, execd.path("link")).unwrap();
    let found = async |path: &std::path::Path, pattern: &str| -> Vec<String> {
        let query = [("path", path.to_str().unwrap()), ("pattern", pattern)];
        let answer = execd.client.get(execd.url("/files/search")).query(&query).send().await.unwrap();
        let found: Vec<Value> = answer.json().await.unwrap();
        let name = |entry: &Value| entry["path"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        found.iter().map(name).collect()
    };
    assert_eq!(found(&root, "*!b.txt").await, ["a!b.txt"]);
    assert_eq!(found(&root, "[!a$]*.txt").await, ["c.txt", "d.txt"]);
    assert_eq!(found(&execd.path("link"), "*.txt").await.len(), 4, "a link as the root is walked");
    let odd = root.join("$HOME.txt");
    let shm = tempfile::tempdir_in("/dev/shm").unwrap();
    let there = shm.path().join("moved");
    let moved = execd.post("/files/mv", &json!([{"src": odd, "dest": there}])).await;
    assert_eq!(moved.status(), 200, "a name with a dollar, to another file system");
    assert_eq!(std::fs::read(there).unwrap(), b"x");
}

#[tokio::test]
async fn a_proxied_server_sees_who_asked() {
    let execd = Execd::open();
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    let seen = tokio::spawn(async move {
        let (mut stream, _) = server.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await.unwrap();
        String::from_utf8(head).unwrap().to_lowercase()
    });
    assert_eq!(execd.get(&format!("/proxy/{port}/")).await.status(), 204);
    let head = seen.await.unwrap();
    assert!(head.contains("x-forwarded-for: 127.0.0.1\r\n"), "an address without a port: {head}");
}
