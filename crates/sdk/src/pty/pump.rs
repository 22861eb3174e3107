//! Moves frames between a terminal's socket and its stream, so that pings are answered and sizes told also while
//! nobody reads.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use parking_lot::Mutex;
use reqwest::Upgraded;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::WebSocketConfig},
};

use super::{
    frames::{self, Heard},
    stream::TerminalEnd,
};

/// Pieces of output that wait for the reader, and frames that wait for the network.
pub(super) const WAITING: usize = 64;
/// Largest frame of the daemon: a replay has up to 1 MiB.
const FRAME: usize = 4 << 20;

/// Bounds of the socket.
pub(super) fn config() -> WebSocketConfig {
    let mut config = WebSocketConfig::default();
    (config.max_message_size, config.max_frame_size) = (Some(FRAME), Some(FRAME));
    config
}

/// Output that came, and the offset after it.
pub(super) struct Came {
    pub(super) bytes: Bytes,
    pub(super) next: u64,
}

/// What both sides know.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) end: Option<TerminalEnd>,
    pub(super) lost: u64,
}

pub(super) struct Pump {
    pub(super) socket: WebSocketStream<Upgraded>,
    /// Offset after what came.
    pub(super) at: u64,
    pub(super) output: mpsc::Sender<Came>,
    pub(super) frames: mpsc::Receiver<Message>,
    pub(super) shared: Arc<Mutex<Shared>>,
}

impl Pump {
    /// Until one of the two sides is gone.
    pub(super) async fn run(mut self) {
        let mut said: Option<TerminalEnd> = None;
        let end = loop {
            // A frame is taken from the socket only when the reader has room for it.
            let room = self.output.clone();
            let room = room.reserve_owned();
            let heard = async {
                let room = room.await.ok();
                (room, self.socket.next().await)
            };
            tokio::select! {
                (room, message) = heard => {
                    let Some(room) = room else { break TerminalEnd::Detached };
                    let message = match message {
                        Some(Ok(message)) => message,
                        Some(Err(_)) | None => break said.unwrap_or(TerminalEnd::Broken),
                    };
                    match frames::read(&message) {
                        Heard::Output(offset, bytes) => {
                            self.at = offset.unwrap_or(self.at) + bytes.len() as u64;
                            if !bytes.is_empty() {
                                room.send(Came { bytes, next: self.at });
                            }
                        }
                        Heard::Lost { offset, bytes } => {
                            self.at = offset + bytes;
                            self.shared.lock().lost += bytes;
                        }
                        Heard::Exit(code) => said = Some(TerminalEnd::Exited(code)),
                        Heard::Refused { code, message } => {
                            tracing::debug!(%code, %message, "the daemon refused a frame");
                        }
                        Heard::Closed(code) => break said.unwrap_or(TerminalEnd::of_close(code)),
                        Heard::Connected | Heard::Ignored => {}
                    }
                }
                frame = self.frames.recv() => {
                    let Some(frame) = frame else { break TerminalEnd::Detached };
                    if self.socket.send(frame).await.is_err() {
                        break said.unwrap_or(TerminalEnd::Broken);
                    }
                }
            }
        };
        // Known before the reader sees the end of the output.
        self.shared.lock().end = Some(end);
        drop(self.output);
        let _ = self.socket.close(None).await;
    }
}
