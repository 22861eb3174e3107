//! The face: routes, verbs, the proxy, the command line.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails should say where")]

mod common;

use std::process::{Command, Stdio};

use common::{DEADLINE, Execd, code};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn unknown_routes_wrong_verbs_and_empty_rooms() {
    let execd = Execd::open();
    assert_eq!(code(execd.get("/no/such").await).await, (404, "ROUTE_NOT_FOUND".into()));
    assert_eq!(code(execd.get("/command").await).await, (405, "METHOD_NOT_ALLOWED".into()));
    for path in [
        "/code",
        "/code/contexts",
        "/v1/isolated/session",
    ] {
        assert_eq!(code(execd.post(path, &json!({})).await).await, (501, "NOT_SUPPORTED".into()), "{path}");
    }
    let answer = execd.client.get(execd.url("/ping")).header("X-Request-ID", "mine").send().await.unwrap();
    assert_eq!(answer.headers()["x-request-id"], "mine");
    let metrics: Value = execd.get("/metrics").await.json().await.unwrap();
    for name in ["cpu_count", "cpu_used_pct", "mem_total_mib", "mem_used_mib", "timestamp"] {
        assert!(metrics[name].is_number(), "{name}");
    }
}

#[tokio::test]
async fn the_proxy_forwards_calls_and_upgrades() {
    let execd = Execd::open();
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    let serve = tokio::spawn(async move {
        let mut heads = Vec::new();
        for answer in [
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n",
        ] {
            let (mut stream, _) = server.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            heads.push(String::from_utf8(head).unwrap());
            stream.write_all(answer.as_bytes()).await.unwrap();
            if answer.contains("101") {
                let mut word = [0; 4];
                stream.read_exact(&mut word).await.unwrap();
                stream.write_all(&word).await.unwrap();
            }
        }
        heads
    });
    let answer = execd.get(&format!("/proxy/{port}/a%2Fb?x=%20y")).await;
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (403, "no"));
    let mut stream = TcpStream::connect(("127.0.0.1", execd.port)).await.unwrap();
    let head = format!("GET /proxy/{port}/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        seen.push(stream.read_u8().await.unwrap());
    }
    assert!(seen.starts_with(b"HTTP/1.1 101"));
    stream.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    tokio::time::timeout(DEADLINE, stream.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(&back, b"ping");
    let heads = serve.await.unwrap();
    assert!(heads[0].starts_with("GET /a%2Fb?x=%20y HTTP/1.1\r\n"), "{}", heads[0]);
    let refused = execd.get(&format!("/proxy/{port}/")).await;
    assert_eq!(code(refused).await, (502, "BACKEND_CONNECTION_FAILED".into()));
    let itself = execd.get(&format!("/proxy/{0}/proxy/{0}/ping", execd.port)).await;
    assert_eq!(itself.status(), 200);
}

fn execd() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_execd"));
    for name in ["OPENSANDBOX_DAEMON_KEY", "OPENSANDBOX_POD_UID", "EXECD_ACCESS_TOKEN"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

#[test]
fn the_command_line_is_clear() {
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = execd().args(["--port", &port]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{text}");
    assert!(text.contains("cannot listen on") && text.contains(&port), "{text}");
    let output = execd()
        .env("OPENSANDBOX_DAEMON_KEY", "nonsense")
        .env("OPENSANDBOX_POD_UID", "x")
        .args(["-port=0"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let output = execd().arg("version").output().unwrap();
    assert!(output.status.success() && output.stdout.starts_with(b"execd "));
    drop(taken);
    let output = execd().args(["alive", "--port", &port]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn run_ends_with_its_programs_code() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let mut command = execd();
        command.env("OPENSANDBOX_STATE_DIR", dir.path().join("s")).args(["-port=0", "run", "--"]).args(args);
        command.output().unwrap()
    };
    let output = run(&["sh", "-c", "echo out; exit 9"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(9), &b"out\n"[..]));
    assert_eq!(run(&["sh", "-c", "kill -KILL $$"]).status.code(), Some(137));
    let missing = run(&["/no/such"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/no/such"));
}
