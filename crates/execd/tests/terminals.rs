//! Terminals over the WebSocket: frames, replay, who types and who watches, and that the last output
//! comes before the end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails should say where")]

mod common;

use common::{DEADLINE, Execd, code};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Output as it came, replay and live.
    output: Vec<u8>,
    errors: Vec<u8>,
    replay: Option<u64>,
    said: Vec<Value>,
    closed: Option<(u16, String)>,
}

impl Client {
    async fn connect(execd: &Execd, id: &str, query: &str) -> Self {
        let url = format!("ws://127.0.0.1:{}/pty/{id}/ws?{query}", execd.port);
        let (socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let (output, errors) = (Vec::new(), Vec::new());
        let mut client = Self { socket, output, errors, replay: None, said: Vec::new(), closed: None };
        client.until(|c| c.said.iter().any(|s| s["type"] == "connected" || s["type"] == "error")).await;
        client
    }

    async fn until(&mut self, done: impl Fn(&Self) -> bool) {
        let wait = async {
            while !done(self) {
                match self.socket.next().await {
                    Some(Ok(Message::Binary(frame))) => match frame[0] {
                        1 => self.output.extend_from_slice(&frame[1..]),
                        2 => self.errors.extend_from_slice(&frame[1..]),
                        3 => {
                            self.replay = Some(u64::from_be_bytes(frame[1..9].try_into().unwrap()));
                            self.output.extend_from_slice(&frame[9..]);
                        }
                        other => panic!("channel {other}"),
                    },
                    Some(Ok(Message::Text(text))) => self.said.push(serde_json::from_str(&text).unwrap()),
                    Some(Ok(Message::Close(frame))) => {
                        self.closed = Some(frame.map_or((0, String::new()), |f| (f.code.into(), f.reason.to_string())));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => {
                        self.closed.get_or_insert((0, String::new()));
                        return;
                    }
                }
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.unwrap();
    }

    async fn sees(&mut self, text: &str) {
        self.until(|c| String::from_utf8_lossy(&c.output).contains(text) || c.closed.is_some()).await;
        assert!(self.text().contains(text), "{text:?} in {:?}", self.text());
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }

    async fn types(&mut self, text: &str) {
        self.socket.send(Message::Binary([b"\0", text.as_bytes()].concat().into())).await.unwrap();
    }

    async fn says(&mut self, value: Value) {
        self.socket.send(Message::Text(value.to_string().into())).await.unwrap();
    }

    async fn end(&mut self) -> (u16, String) {
        self.until(|c| c.closed.is_some()).await;
        self.closed.clone().unwrap()
    }

    fn exit_code(&self) -> Option<i64> {
        self.said.iter().find(|s| s["type"] == "exit")?["exit_code"].as_i64()
    }
}

async fn terminal(execd: &Execd, body: &Value) -> String {
    let answer = execd.post("/pty", body).await;
    assert_eq!(answer.status(), 201);
    answer.json::<Value>().await.unwrap()["session_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_shell_is_typed_into_and_ends() {
    let execd = Execd::open();
    let id = terminal(&execd, &json!({"cwd": execd.path("made"), "cols": 100, "rows": 30})).await;
    let before: Value = execd.get(&format!("/pty/{id}")).await.json().await.unwrap();
    assert_eq!(before, json!({"session_id": id, "running": false, "output_offset": 0}));
    let mut client = Client::connect(&execd, &id, "").await;
    assert_eq!(client.said[0], json!({"type": "connected", "session_id": id, "mode": "pty"}));
    client.types("echo \"$((40+2))-${TERM:+term}-$(stty size)-$(pwd)\"\n").await;
    client.sees(&format!("42-term-30 100-{}", execd.path("made").display())).await;
    client.says(json!({"type": "resize", "cols": 77, "rows": 11})).await;
    client.says(json!({"type": "stdin", "data": "stty size\n"})).await;
    client.sees("11 77").await;
    client.says(json!({"type": "ping"})).await;
    client.until(|c| c.said.iter().any(|s| s["type"] == "pong")).await;
    client.says(json!({"type": "nope"})).await;
    client.until(|c| c.said.iter().any(|s| s["code"] == "INVALID_FRAME")).await;
    let now: Value = execd.get(&format!("/pty/{id}")).await.json().await.unwrap();
    assert!(now["running"] == true && now["output_offset"].as_u64().unwrap() > 0);
    client.types("exit 5\n").await;
    assert_eq!((client.end().await, client.exit_code()), ((1000, "process exited".into()), Some(5)));
}

#[tokio::test]
async fn the_last_output_comes_before_the_end() {
    let execd = Execd::open();
    for _ in 0..20 {
        let id = terminal(&execd, &json!({"command": "seq 1 3000; printf tail; exit 3"})).await;
        let mut client = Client::connect(&execd, &id, "").await;
        client.end().await;
        assert!(client.text().ends_with("2999\r\n3000\r\ntail"), "{:?}", client.text().len());
        assert_eq!(client.exit_code(), Some(3));
    }
}

#[tokio::test]
async fn a_signal_reaches_the_job_in_the_foreground() {
    let execd = Execd::open();
    let id = terminal(&execd, &json!({})).await;
    let mut client = Client::connect(&execd, &id, "").await;
    client.types("echo st''art; sleep 1000; echo \"status $?\"\n").await;
    client.sees("start").await;
    let sleeping = async {
        // The job is there once the shell has given it the terminal.
        while !std::fs::read_dir("/proc").unwrap().flatten().any(|e| {
            std::fs::read_to_string(e.path().join("cmdline")).is_ok_and(|c| c == "sleep\x001000\0")
                && std::fs::read_to_string(e.path().join("environ"))
                    .is_ok_and(|t| t.contains(execd.dir.path().to_str().unwrap()))
        }) {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEADLINE, sleeping).await.unwrap();
    client.says(json!({"type": "signal", "signal": "SIGINT"})).await;
    client.types("echo al''ive\n").await;
    client.sees("alive").await;
    client.says(json!({"type": "signal", "signal": "SIGNOPE"})).await;
    client.until(|c| c.said.iter().any(|s| s["code"] == "INVALID_FRAME")).await;
    assert_eq!(execd.client.delete(execd.url(&format!("/pty/{id}"))).send().await.unwrap().status(), 200);
    client.end().await;
    let again = execd.client.delete(execd.url(&format!("/pty/{id}"))).send().await.unwrap();
    assert_eq!(code(again).await, (404, "CONTEXT_NOT_FOUND".into()));
    assert_eq!(code(execd.get(&format!("/pty/{id}/ws")).await).await.0, 404);
}

#[tokio::test]
async fn one_types_others_watch_and_any_may_come_back() {
    let execd = Execd::open();
    let id = terminal(&execd, &json!({})).await;
    let mut first = Client::connect(&execd, &id, "").await;
    first.types("V=kept; echo fir''st\n").await;
    first.sees("first").await;
    let taken = tokio_tungstenite::connect_async(format!("ws://127.0.0.1:{}/pty/{id}/ws", execd.port)).await;
    assert!(matches!(taken, Err(Error::Http(answer)) if answer.status() == 409));
    let plain = execd.get(&format!("/pty/{id}/ws?takeover=1")).await;
    assert_eq!(code(plain).await, (409, "ALREADY_CONNECTED".into()));
    let mut viewer = Client::connect(&execd, &id, "viewer=1").await;
    viewer.sees("first").await;
    viewer.types("echo not\n").await;
    viewer.until(|c| c.said.iter().any(|s| s["code"] == "INVALID_FRAME")).await;
    let mut second = Client::connect(&execd, &id, "takeover=1&since=0").await;
    assert_eq!(first.end().await, (4001, "TAKEN_OVER".into()));
    assert_eq!(second.replay, Some(0));
    second.types("echo \"v $V\"\n").await;
    second.sees("v kept").await;
    viewer.sees("v kept").await;
    // All saw the same bytes.
    assert!(second.text().starts_with(&first.text()));
    let offset: Value = execd.get(&format!("/pty/{id}")).await.json().await.unwrap();
    let offset = offset["output_offset"].as_u64().unwrap();
    drop(second);
    let mut third = loop {
        // The place is free when the server has seen that the client has gone.
        let url = format!("ws://127.0.0.1:{}/pty/{id}/ws?since={}", execd.port, offset - 3);
        if tokio_tungstenite::connect_async(&url).await.is_ok() {
            break Client::connect(&execd, &id, &format!("takeover=1&since={}", offset - 3)).await;
        }
    };
    assert_eq!(third.replay, Some(offset - 3));
    third.types("exit\n").await;
    third.end().await;
    viewer.end().await;
    // The next client starts a new shell under the same id.
    let mut fourth = Client::connect(&execd, &id, "").await;
    fourth.types("echo \"[$V]\"\n").await;
    fourth.sees("[]\r\n").await;
}

#[tokio::test]
async fn a_storm_of_takeovers_leaves_one() {
    let execd = Execd::open();
    let id = terminal(&execd, &json!({})).await;
    let mut clients = futures::future::join_all((0..6).map(|_| Client::connect(&execd, &id, "takeover=1"))).await;
    let mut left = 0;
    for client in &mut clients {
        let closed = tokio::time::timeout(std::time::Duration::from_millis(300), client.end()).await;
        match closed {
            Ok(end) => assert_eq!(end.0, 4001),
            Err(_) => left += 1,
        }
    }
    assert_eq!(left, 1);
}

#[tokio::test]
async fn pipes_keep_the_streams_apart_also_in_the_replay() {
    let execd = Execd::open();
    let id = terminal(&execd, &json!({"command": "echo out; echo err >&2; read x; echo \"got $x\"; exit 2"})).await;
    let mut client = Client::connect(&execd, &id, "pty=0").await;
    assert_eq!(client.said[0]["mode"], "pipe");
    client.until(|c| c.errors == b"err\n" && c.output == b"out\n").await;
    let mut viewer = Client::connect(&execd, &id, "viewer=1&since=0").await;
    viewer.until(|c| c.errors == b"err\n" && c.output == b"out\n").await;
    assert_eq!(viewer.replay, Some(0));
    client.types("in\n").await;
    client.end().await;
    assert_eq!((client.text(), client.exit_code()), ("out\ngot in\n".into(), Some(2)));
}

#[tokio::test]
async fn replay_over_the_end_of_the_ring() {
    let execd = Execd::open();
    let id = terminal(&execd, &json!({"command": "stty raw; seq 1 400000; read x"})).await;
    let mut client = Client::connect(&execd, &id, "pty=1").await;
    client.sees("400000").await;
    drop(client);
    let mut late = Client::connect(&execd, &id, "viewer=1&since=5").await;
    late.sees("400000").await;
    let start = late.replay.unwrap();
    assert!(start > 5 && late.output.len() <= 1 << 20 && late.output.len() > 900 << 10);
    assert_eq!(start + late.output.len() as u64, 2_688_895);
}

#[tokio::test]
async fn what_cannot_be() {
    let execd = Execd::with(&[("EXECD_MAX_SESSIONS", "1")]);
    assert_eq!(code(execd.post("/pty", &json!({"cols": 5})).await).await.0, 400);
    assert_eq!(code(execd.post("/pty", &json!({"cwd": 1})).await).await.0, 400);
    assert_eq!(code(execd.post("/pty", &json!({"cwd": "/etc/passwd/x"})).await).await.0, 400);
    let id = terminal(&execd, &Value::Null).await;
    assert_eq!(code(execd.post("/pty", &json!({})).await).await, (429, "TOO_MANY_SESSIONS".into()));
    assert_eq!(code(execd.get(&format!("/pty/{id}/ws")).await).await, (400, "INVALID_REQUEST_BODY".into()));
    assert_eq!(code(execd.get("/pty/none").await).await, (404, "CONTEXT_NOT_FOUND".into()));
}
