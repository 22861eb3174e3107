//! What the streams over a WebSocket share: the socket, its messages, and the task that sends them.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::SplitSink;
use futures::{SinkExt as _, Stream, StreamExt as _};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

use crate::streams::Duplex;

/// Bytes read from a pod at once.
pub(super) const CHUNK: usize = 32 * 1024;
/// Messages queued in either direction.
pub(super) const QUEUE: usize = 16;
/// Largest message taken from the caller.
const MAX_MESSAGE: usize = 1 << 20;
/// What the caller gets to say goodbye in turn.
pub(super) const GOODBYE: Duration = Duration::from_secs(1);

/// An upgraded connection as a WebSocket.
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
pub(super) fn goodbye() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))
}

/// A queue of messages that a task sends; when its last sender is gone, the task says goodbye and ends.
pub(super) fn outbox(mut sink: SplitSink<Socket, Message>) -> (mpsc::Sender<Message>, JoinHandle<()>) {
    let (sender, mut queue) = mpsc::channel::<Message>(QUEUE);
    let task = tokio::spawn(async move {
        while let Some(message) = queue.recv().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
        let _ = sink.send(goodbye()).await;
    });
    (sender, task)
}

/// The payloads that come, until the socket closes or breaks.
pub(super) fn payloads(
    source: impl Stream<Item = Result<Message, tokio_tungstenite::tungstenite::Error>>,
) -> impl Stream<Item = Bytes> {
    source.take_while(|message| std::future::ready(matches!(message, Ok(m) if !m.is_close()))).filter_map(|message| {
        std::future::ready(match message {
            Ok(Message::Binary(bytes)) => Some(bytes),
            _ => None,
        })
    })
}

/// Carries one connection: what comes is written, what is read is handed to `send`, until the pod's side ends.
pub(super) async fn relay<F>(
    stream: Box<dyn Duplex>,
    mut input: mpsc::Receiver<Bytes>,
    mut send: impl FnMut(Bytes) -> F,
) where
    F: Future<Output = bool>,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let inward = async {
        while let Some(bytes) = input.recv().await {
            if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                break;
            }
        }
        let _ = writer.shutdown().await;
        // The other direction decides when the connection is over.
        std::future::pending::<()>().await;
    };
    let outward = async {
        let mut buffer = vec![0; CHUNK];
        while let Ok(count) = reader.read(&mut buffer).await {
            if count == 0 || !send(Bytes::copy_from_slice(&buffer[..count])).await {
                break;
            }
        }
    };
    tokio::select! {
        () = inward => {}
        () = outward => {}
    }
}
