//! Exec and attach over a WebSocket: the first byte of a message is the channel.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use hyper::upgrade::OnUpgrade;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::protocol::Message;

use super::wire::{self, CHUNK, QUEUE, Socket, message, outbox};
use crate::streams::{ExecOptions, ExecStreams, PodRef, PodStreams, Reader, StreamError, TerminalSize, Writer};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Version 5 of the protocol: the next byte names a channel that its sender has closed.
const CLOSE: u8 = 255;

/// Runs the command and carries its streams until it has ended and everything it wrote was sent.
pub(super) async fn run(
    upgrade: OnUpgrade,
    node: Arc<dyn PodStreams>,
    pod: PodRef,
    options: ExecOptions,
    closes_channels: bool,
) {
    let Some(socket) = wire::socket(upgrade).await else { return };
    match node.exec(&pod, options).await {
        Ok(streams) => carry(socket, streams, closes_channels).await,
        Err(error) => {
            let (out, writer) = outbox(socket.split().0);
            let _ = out.send(message(ERROR, &crate::store::encode(&failure(&error)))).await;
            drop(out);
            let _ = tokio::time::timeout(wire::GOODBYE, writer).await;
        }
    }
}

async fn carry(socket: Socket, streams: ExecStreams, closes_channels: bool) {
    let ExecStreams { stdin, stdout, stderr, resize, mut exit } = streams;
    let (sink, source) = socket.split();
    let (out, mut writer) = outbox(sink);
    let readers: Vec<_> = [(STDOUT, stdout), (STDERR, stderr)]
        .into_iter()
        .filter_map(|(channel, reader)| Some(tokio::spawn(pump(channel, reader?, out.clone()))))
        .collect();
    let (mut input, feeder) = match stdin {
        Some(writer) => {
            let (sender, receiver) = mpsc::channel::<Bytes>(QUEUE);
            (Some(sender), Some(tokio::spawn(feed(writer, receiver))))
        }
        None => (None, None),
    };
    let ended = tokio::spawn(async move {
        let result = (&mut exit).await;
        // Output first: the caller hears of the end when it has all of it.
        for reader in readers {
            let _ = reader.await;
        }
        let status = match &result {
            Ok(0) => json!({"metadata": {}, "status": "Success"}),
            Ok(code) => nonzero(*code),
            Err(error) => failure(error),
        };
        let _ = out.send(message(ERROR, &crate::store::encode(&status))).await;
    });
    let mut incoming = std::pin::pin!(wire::payloads(source));
    loop {
        tokio::select! {
            _ = &mut writer => {
                // Kubernetes' clients close in turn; whatever they still send is read away, for a moment.
                let drain = async { while incoming.next().await.is_some() {} };
                let _ = tokio::time::timeout(wire::GOODBYE, drain).await;
                break;
            }
            payload = incoming.next() => {
                let Some(bytes) = payload else { break };
                let Some((&channel, payload)) = bytes.split_first() else { continue };
                match channel {
                    STDIN if payload.is_empty() => {}
                    STDIN => {
                        if let Some(sender) = &input
                            && sender.send(bytes.slice(1..)).await.is_err()
                        {
                            // The command reads no more; what is still sent to it is lost, as in a pipe.
                            input = None;
                        }
                    }
                    RESIZE => {
                        if let (Some(resize), Some(size)) = (&resize, terminal(payload)) {
                            let _ = resize.try_send(size);
                        }
                    }
                    CLOSE if closes_channels && payload == [STDIN] => input = None,
                    _ => {}
                }
            }
        }
    }
    // The caller is gone or the command has ended; dropping the streams ends what is left.
    ended.abort();
    writer.abort();
    drop(input);
    if let Some(feeder) = feeder {
        feeder.abort();
    }
}

async fn pump(channel: u8, mut reader: Reader, out: mpsc::Sender<Message>) {
    let mut buffer = vec![0; CHUNK];
    loop {
        match reader.read(&mut buffer).await {
            // A terminal whose last process has ended reports an error instead of its end.
            Ok(0) | Err(_) => return,
            Ok(count) => {
                if out.send(message(channel, &buffer[..count])).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn feed(mut writer: Writer, mut input: mpsc::Receiver<Bytes>) {
    while let Some(bytes) = input.recv().await {
        if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
    let _ = writer.shutdown().await;
}

fn terminal(payload: &[u8]) -> Option<TerminalSize> {
    let size: Value = serde_json::from_slice(payload).ok()?;
    let of = |key: &str| u16::try_from(size.get(key)?.as_u64()?).ok();
    Some(TerminalSize { width: of("Width")?, height: of("Height")? })
}

fn nonzero(code: i32) -> Value {
    json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

fn failure(error: &StreamError) -> Value {
    let refused = match error {
        StreamError::NoSuchPod(_) => ("NotFound", 404),
        StreamError::NoSuchContainer { .. } | StreamError::NotRunning { .. } => ("BadRequest", 400),
        StreamError::CannotRun { .. } | StreamError::Io(_) => ("InternalError", 500),
    };
    json!({
        "metadata": {}, "status": "Failure", "reason": refused.0, "code": refused.1,
        "message": format!("{error}"),
    })
}
