//! Port forwarding over a WebSocket: two channels a port, data and errors.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use hyper::upgrade::OnUpgrade;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::protocol::Message;

use super::channels::{message, socket};
use crate::streams::{Duplex, PodRef, PodStreams};

/// Ports of one connection: each takes two of the 256 channels.
pub(super) const MAX_PORTS: usize = 64;
const CHUNK: usize = 32 * 1024;
const QUEUE: usize = 16;

/// Carries the ports' bytes until the caller goes.
pub(super) async fn run(upgrade: OnUpgrade, node: Arc<dyn PodStreams>, pod: PodRef, ports: Vec<u16>) {
    let Some(socket) = socket(upgrade).await else { return };
    let (mut sink, mut source) = socket.split();
    let (out, mut outgoing) = mpsc::channel::<Message>(QUEUE);
    let mut inputs: HashMap<u8, mpsc::Sender<Bytes>> = HashMap::new();
    let mut tasks = tokio::task::JoinSet::new();
    for (index, port) in ports.into_iter().enumerate() {
        let Ok(channel) = u8::try_from(index * 2) else { continue };
        // The first message of each channel names its port.
        for channel in [channel, channel + 1] {
            let _ = out.send(message(channel, &port.to_le_bytes())).await;
        }
        let (sender, receiver) = mpsc::channel(QUEUE);
        inputs.insert(channel, sender);
        let (node, pod, out) = (node.clone(), pod.clone(), out.clone());
        tasks.spawn(async move {
            match node.port_forward(&pod, port).await {
                Ok(stream) => copy(stream, channel, receiver, &out).await,
                Err(error) => {
                    let _ = out.send(message(channel + 1, error.to_string().as_bytes())).await;
                }
            }
        });
    }
    drop(out);
    loop {
        tokio::select! {
            line = outgoing.recv() => match line {
                Some(line) => {
                    if sink.send(line).await.is_err() {
                        break;
                    }
                }
                None => break,
            },
            received = source.next() => match received {
                Some(Ok(Message::Binary(bytes))) => {
                    let Some(&channel) = bytes.first() else { continue };
                    if let Some(input) = inputs.get(&channel)
                        && input.send(bytes.slice(1..)).await.is_err()
                    {
                        inputs.remove(&channel);
                    }
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            },
        }
    }
    let _ = sink.close().await;
}

async fn copy(stream: Box<dyn Duplex>, channel: u8, mut input: mpsc::Receiver<Bytes>, out: &mpsc::Sender<Message>) {
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
            if count == 0 || out.send(message(channel, &buffer[..count])).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = inward => {}
        () = outward => {}
    }
}
