//! Exec and attach over a WebSocket: the first byte of a message is the channel.

use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

use crate::streams::{ExecOptions, ExecStreams, PodRef, PodStreams, Reader, StreamError, TerminalSize, Writer};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Version 5 of the protocol: the next byte names a channel that its sender has closed.
const CLOSE: u8 = 255;

/// Bytes read from the command at once.
const CHUNK: usize = 32 * 1024;
/// Messages queued towards the caller, and towards standard input.
const QUEUE: usize = 16;
/// Largest message taken from the caller.
const MAX_MESSAGE: usize = 1 << 20;

pub(super) type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// The socket of an upgraded connection.
pub(super) async fn socket(upgrade: OnUpgrade) -> Option<Socket> {
    match upgrade.await {
        Ok(io) => {
            let config =
                WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
            Some(WebSocketStream::from_raw_socket(TokioIo::new(io), Role::Server, Some(config)).await)
        }
        Err(error) => {
            tracing::debug!(%error, "a connection was not upgraded");
            None
        }
    }
}

/// A message on a channel.
pub(super) fn message(channel: u8, payload: &[u8]) -> Message {
    let mut bytes = Vec::with_capacity(payload.len() + 1);
    bytes.push(channel);
    bytes.extend_from_slice(payload);
    Message::Binary(Bytes::from(bytes))
}

/// An end without a code would be taken for a broken connection.
fn goodbye() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))
}

/// Runs the command and carries its streams until it has ended and everything it wrote was sent.
pub(super) async fn run(
    upgrade: OnUpgrade,
    node: Arc<dyn PodStreams>,
    pod: PodRef,
    options: ExecOptions,
    closes_channels: bool,
) {
    let Some(mut socket) = socket(upgrade).await else { return };
    let streams = match node.exec(&pod, options).await {
        Ok(streams) => streams,
        Err(error) => {
            let _ = socket.send(message(ERROR, &crate::store::encode(&failure(&error)))).await;
            let _ = socket.send(goodbye()).await;
            return;
        }
    };
    carry(socket, streams, closes_channels).await;
}

async fn carry(socket: Socket, streams: ExecStreams, closes_channels: bool) {
    let ExecStreams { stdin, stdout, stderr, resize, mut exit } = streams;
    let (mut sink, mut source) = socket.split();
    let (out, mut outgoing) = mpsc::channel::<Message>(QUEUE);
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
    loop {
        tokio::select! {
            line = outgoing.recv() => match line {
                Some(line) => {
                    if sink.send(line).await.is_err() {
                        break;
                    }
                }
                None => {
                    let _ = sink.send(goodbye()).await;
                    // Kubernetes' clients close in turn; whatever they still send is read away, for a moment.
                    let drain = async { while let Some(Ok(_)) = source.next().await {} };
                    let _ = tokio::time::timeout(std::time::Duration::from_secs(1), drain).await;
                    break;
                }
            },
            received = source.next() => match received {
                Some(Ok(Message::Binary(bytes))) => {
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
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Text(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
            },
        }
    }
    drop(outgoing);
    // The caller is gone or the command has ended; dropping the streams ends what is left.
    ended.abort();
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
