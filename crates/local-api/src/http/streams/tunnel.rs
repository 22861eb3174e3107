//! Port forwarding as kubectl does it: a SPDY session, through a WebSocket or over the connection itself.
//!
//! Each local connection is a pair of streams of one request: one for data, one for what went wrong.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_tungstenite::tungstenite::protocol::Message;

use super::spdy::{self, Decoder, Frame};
use super::wire::{self, QUEUE, outbox};
use crate::streams::{PodRef, PodStreams};

/// Connections of one session at once.
const CONNECTIONS: usize = 1_024;

/// Serves a session that comes through a WebSocket.
pub(super) async fn through_websocket(upgrade: OnUpgrade, node: Arc<dyn PodStreams>, pod: PodRef) {
    let Some(socket) = wire::socket(upgrade).await else { return };
    let (sink, source) = socket.split();
    let (messages, writer) = outbox(sink);
    let (out, mut frames) = mpsc::channel::<Bytes>(QUEUE);
    let packer = tokio::spawn(async move {
        while let Some(bytes) = frames.recv().await {
            if messages.send(Message::Binary(bytes)).await.is_err() {
                return;
            }
        }
    });
    session(wire::payloads(source), out, node, pod).await;
    // What was queued goes out; a caller that reads no more is not waited for.
    let _ = tokio::time::timeout(wire::GOODBYE, async { (packer.await, writer.await) }).await;
}

/// Serves a session on the upgraded connection itself.
pub(super) async fn over_connection(upgrade: OnUpgrade, node: Arc<dyn PodStreams>, pod: PodRef) {
    let Ok(io) = upgrade.await else { return };
    let (reader, mut writer) = tokio::io::split(TokioIo::new(io));
    let (out, mut frames) = mpsc::channel::<Bytes>(QUEUE);
    let sender = tokio::spawn(async move {
        while let Some(bytes) = frames.recv().await {
            if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                return;
            }
        }
        let _ = writer.shutdown().await;
    });
    let incoming = tokio_util::io::ReaderStream::with_capacity(reader, wire::CHUNK)
        .take_while(|piece| std::future::ready(piece.is_ok()))
        .filter_map(|piece| std::future::ready(piece.ok()));
    session(incoming, out, node, pod).await;
    let _ = tokio::time::timeout(wire::GOODBYE, sender).await;
}

/// One of the two streams of a request has come, or both.
#[derive(Default)]
struct Request {
    error: Option<u32>,
    data: Option<u32>,
    port: u16,
}

/// The streams of one connection that is carried.
struct Carried {
    input: Option<mpsc::Sender<Bytes>>,
    task: AbortHandle,
}

struct Session {
    out: mpsc::Sender<Bytes>,
    node: Arc<dyn PodStreams>,
    pod: PodRef,
    requests: HashMap<String, Request>,
    carried: HashMap<u32, Carried>,
    tasks: JoinSet<u32>,
    accepted: bool,
}

async fn session(
    incoming: impl Stream<Item = Bytes>,
    out: mpsc::Sender<Bytes>,
    node: Arc<dyn PodStreams>,
    pod: PodRef,
) {
    let mut incoming = std::pin::pin!(incoming);
    let mut decoder = Decoder::new();
    let mut session = Session {
        out,
        node,
        pod,
        requests: HashMap::new(),
        carried: HashMap::new(),
        tasks: JoinSet::new(),
        accepted: false,
    };
    while let Some(bytes) = incoming.next().await {
        decoder.push(&bytes);
        loop {
            match decoder.next() {
                Ok(Some(Frame::Away)) => return,
                Ok(Some(frame)) => session.take(frame).await,
                Ok(None) => break,
                Err(error) => return tracing::debug!(%error, "a port-forward's session ends"),
            }
        }
        while let Some(ended) = session.tasks.try_join_next() {
            if let Ok(stream) = ended {
                session.carried.remove(&stream);
            }
        }
    }
}

impl Session {
    async fn take(&mut self, frame: Frame) {
        match frame {
            Frame::Open { stream, headers } => self.open(stream, &headers).await,
            Frame::Data { stream, bytes, last } => {
                let Some(carried) = self.carried.get_mut(&stream) else { return };
                if let Some(input) = &carried.input
                    && !bytes.is_empty()
                    && input.send(bytes).await.is_err()
                {
                    carried.input = None;
                }
                if last {
                    carried.input = None;
                }
            }
            Frame::Reset { stream } => {
                if let Some(carried) = self.carried.remove(&stream) {
                    carried.task.abort();
                }
            }
            Frame::Ping(id) => drop(self.out.send(spdy::pong(id)).await),
            Frame::Away => {}
        }
    }

    async fn open(&mut self, stream: u32, headers: &[(String, String)]) {
        let header = |name: &str| headers.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str()).unwrap_or_default();
        let (kind, port) = (header("streamtype"), header("port").parse::<u16>());
        let full = self.requests.len() + self.carried.len() >= CONNECTIONS;
        let (Ok(port), "error" | "data", false) = (port, kind, full) else {
            return drop(self.out.send(spdy::reset(stream)).await);
        };
        let first = !std::mem::replace(&mut self.accepted, true);
        let _ = self.out.send(spdy::accept(stream, first)).await;
        // The oldest clients name no request; the pair follows each other then.
        let id = header("requestid").to_owned();
        let request = self.requests.entry(id.clone()).or_default();
        request.port = port;
        *(if kind == "error" { &mut request.error } else { &mut request.data }) = Some(stream);
        if let (Some(error), Some(data)) = (request.error, request.data) {
            self.requests.remove(&id);
            let (input, receiver) = mpsc::channel(QUEUE);
            let connection =
                carry(self.out.clone(), self.node.clone(), self.pod.clone(), port, (data, error), receiver);
            let task = self.tasks.spawn(connection);
            self.carried.insert(data, Carried { input: Some(input), task });
        }
    }
}

/// Carries one connection to its end; gives the data stream.
async fn carry(
    out: mpsc::Sender<Bytes>,
    node: Arc<dyn PodStreams>,
    pod: PodRef,
    port: u16,
    (data, error): (u32, u32),
    input: mpsc::Receiver<Bytes>,
) -> u32 {
    match node.port_forward(&pod, port).await {
        Ok(stream) => {
            let send = |bytes: Bytes| {
                let out = out.clone();
                async move { out.send(spdy::data(data, &bytes, false)).await.is_ok() }
            };
            wire::relay(stream, input, send).await;
            let _ = out.send(spdy::data(data, b"", true)).await;
        }
        Err(why) => {
            let text = format!("error forwarding port {port} to pod {}: {why}", pod.name);
            let _ = out.send(spdy::data(error, text.as_bytes(), false)).await;
            let _ = out.send(spdy::data(data, b"", true)).await;
        }
    }
    let _ = out.send(spdy::data(error, b"", true)).await;
    data
}
