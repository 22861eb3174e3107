//! Port forwarding over a WebSocket: two channels a port, data and errors.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use hyper::upgrade::OnUpgrade;
use tokio::sync::mpsc;

use super::wire::{self, QUEUE, message, outbox};
use crate::streams::{PodRef, PodStreams};

/// Ports of one connection: each takes two of the 256 channels.
pub(super) const MAX_PORTS: usize = 64;

/// Carries the ports' bytes until the caller goes.
pub(super) async fn run(upgrade: OnUpgrade, node: Arc<dyn PodStreams>, pod: PodRef, ports: Vec<u16>) {
    let Some(socket) = wire::socket(upgrade).await else { return };
    let (sink, source) = socket.split();
    let (out, mut writer) = outbox(sink);
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
                Ok(stream) => {
                    let send = |bytes: Bytes| {
                        let out = out.clone();
                        async move { out.send(message(channel, &bytes)).await.is_ok() }
                    };
                    wire::relay(stream, receiver, send).await;
                }
                Err(error) => {
                    let _ = out.send(message(channel + 1, error.to_string().as_bytes())).await;
                }
            }
        });
    }
    drop(out);
    let mut incoming = std::pin::pin!(wire::payloads(source));
    loop {
        tokio::select! {
            // Every port's connection has ended.
            _ = &mut writer => return,
            payload = incoming.next() => {
                let Some(bytes) = payload else { break };
                let Some(&channel) = bytes.first() else { continue };
                if let Some(input) = inputs.get(&channel)
                    && input.send(bytes.slice(1..)).await.is_err()
                {
                    inputs.remove(&channel);
                }
            }
        }
    }
    tasks.abort_all();
    writer.abort();
}
