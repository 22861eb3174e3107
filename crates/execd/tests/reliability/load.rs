//! Much of everything: commands, floods of output, terminals.

use futures::future::join_all;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::common::{DEADLINE, Execd};
use crate::held::{Outcome, watchable, watched};

/// As many ended commands as are remembered, so that the memory has its size.
const REMEMBERED: usize = 1000;

pub async fn commands(times: usize) -> Outcome {
    watched("commands", &watchable(), REMEMBERED, times, async |execd: &Execd, count| {
        for _ in 0..count / 10 {
            let some = join_all((0..10).map(|_| execd.shell("echo out; echo err >&2; exit 3"))).await;
            for run in some {
                assert_eq!((run.stdout(), run.stderr(), run.exit()), (vec!["out"], vec!["err"], "3"));
            }
        }
    })
    .await
}

pub async fn floods(times: usize) -> Outcome {
    // The first hundred fill the store.
    watched("floods of output, 1.3 MB each", &watchable(), 100, times, async |execd: &Execd, count| {
        for _ in 0..count / 4 {
            for run in join_all((0..4).map(|_| flood(execd))).await {
                run.unwrap();
            }
        }
    })
    .await
}

/// Lines that differ, so that what is missing or doubled is seen; read without a parser, which would be slower
/// than the flood.
async fn flood(execd: &Execd) -> Result<(), String> {
    let mut answer = execd.post("/command", &json!({"command": "seq 1 12000; seq 1 3000 >&2"})).await;
    let (mut kept, mut next) = (Vec::new(), [1u32, 1]);
    let mut ends = 0;
    while let Some(bytes) = answer.chunk().await.map_err(|e| e.to_string())? {
        kept.extend_from_slice(&bytes);
        let whole = kept.windows(2).rposition(|pair| pair == b"\n\n").map_or(0, |at| at + 2);
        for event in kept[..whole].split(|byte| *byte == b'\n').filter(|event| !event.is_empty()) {
            let text = std::str::from_utf8(event).unwrap();
            let stream = match text {
                _ if text.starts_with("{\"type\":\"stdout\"") => 0,
                _ if text.starts_with("{\"type\":\"stderr\"") => 1,
                _ => {
                    ends += usize::from(text.contains("execution_complete") || text.contains("\"error\""));
                    continue;
                }
            };
            if !text.contains(&format!("\"text\":\"{}\"", next[stream])) {
                return Err(format!("{} was to come, not {text}", next[stream]));
            }
            next[stream] += 1;
        }
        kept.drain(..whole);
    }
    if (next, ends) == ([12_001, 3_001], 1) { Ok(()) } else { Err(format!("ended at {next:?} with {ends} ends")) }
}

pub async fn terminals(times: usize) -> Outcome {
    watched("terminals", &watchable(), 10, times, async |execd: &Execd, count| {
        for _ in 0..count.div_ceil(10) {
            let each = join_all((0..10).map(|number| terminal(execd, number)));
            tokio::time::timeout(DEADLINE, each).await.unwrap();
        }
    })
    .await
}

async fn terminal(execd: &Execd, number: usize) {
    let made: Value = execd.post("/pty", &json!({})).await.json().await.unwrap();
    let id = made["session_id"].as_str().unwrap().to_owned();
    let url = format!("ws://127.0.0.1:{}/pty/{id}/ws", execd.port);
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
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

#[tokio::test]
async fn commands_leave_nothing() {
    commands(1000).await;
}

#[tokio::test]
async fn floods_come_whole() {
    floods(100).await;
}

#[tokio::test]
async fn terminals_leave_nothing() {
    terminals(10).await;
}
