//! Being at a terminal: what is read was printed, what is written is typed.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use futures::StreamExt;
use parking_lot::Mutex;
use reqwest::Upgraded;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};
use tokio_util::sync::PollSender;

use super::{
    frames::{self, Heard},
    pump::{Came, Pump, Shared, WAITING},
};
use crate::{ApiError, Error, Result};

/// Bytes typed in one frame.
const TYPED: usize = 32 << 10;

/// Why a stream of a terminal ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TerminalEnd {
    /// The program ended, with its exit code; -1 when a signal ended it.
    Exited(i32),
    /// Somebody else took the place.
    TakenOver,
    /// The terminal was closed.
    Closed,
    /// This side left.
    Detached,
    /// The connection broke. The program runs on: attach again with [`TerminalStream::offset`].
    Broken,
}

impl TerminalEnd {
    pub(super) fn of_close(code: u16) -> Self {
        match code {
            4001 => Self::TakenOver,
            1000 => Self::Closed,
            _ => Self::Broken,
        }
    }
}

/// Being at a terminal. Reading gives what the terminal printed, writing types; the end of reading is told by
/// [`Self::end`]. Dropping it leaves the program running.
///
/// It wants to be read: a client that takes nothing for 10 s is dropped by the daemon.
pub struct TerminalStream {
    output: mpsc::Receiver<Came>,
    piece: Bytes,
    /// Offset after `piece`.
    next: u64,
    typed: PollSender<Message>,
    control: TerminalControl,
    shared: Arc<Mutex<Shared>>,
}

impl std::fmt::Debug for TerminalStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TerminalStream").field("offset", &self.offset()).finish_non_exhaustive()
    }
}

/// Sizes and signals for a terminal, also while its stream is split or read elsewhere.
#[derive(Debug, Clone)]
pub struct TerminalControl {
    /// Weak, so that a forgotten handle does not keep the terminal occupied.
    frames: mpsc::WeakSender<Message>,
}

impl TerminalControl {
    async fn say(&self, operation: &'static str, frame: Message) -> Result<()> {
        let gone = || Error::Io { operation, source: io::ErrorKind::BrokenPipe.into() };
        self.frames.upgrade().ok_or_else(gone)?.send(frame).await.map_err(|_| gone())
    }

    /// Tells the size in characters; each at least 1.
    pub async fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        self.say("resize terminal", frames::resize(columns.max(1), rows.max(1))).await
    }

    /// Sends a signal by name, e.g. `SIGINT`, to the job in the foreground.
    pub async fn signal(&self, name: &str) -> Result<()> {
        self.say("signal terminal", frames::signal(name)).await
    }
}

impl TerminalStream {
    /// Waits for the first word of the daemon, which tells a refusal.
    pub(super) async fn begin(mut socket: WebSocketStream<Upgraded>, since: u64, timeout: Duration) -> Result<Self> {
        const OPERATION: &str = "attach to terminal";
        let mut at = since;
        let mut early = Vec::new();
        let shared = Shared::default();
        let connected = async {
            loop {
                let Some(Ok(message)) = socket.next().await else {
                    return Err(Error::protocol(OPERATION, "the connection broke before the terminal answered"));
                };
                match frames::read(&message) {
                    Heard::Output(offset, bytes) => {
                        at = offset.unwrap_or(at) + bytes.len() as u64;
                        early.push(Came { bytes, next: at });
                    }
                    Heard::Connected => return Ok(()),
                    Heard::Refused { code, message } => {
                        let (operation, request_id) = (OPERATION, String::new());
                        let status = api_types::ErrorCode::from_code(&code).map_or(409, api_types::ErrorCode::status);
                        let refusal = ApiError { operation, status, code, message, request_id, retry_after: None };
                        return Err(Error::Api(Box::new(refusal)));
                    }
                    Heard::Closed(code) => {
                        return Err(Error::protocol(OPERATION, format!("closed with {code}")));
                    }
                    Heard::Lost { .. } | Heard::Exit(_) | Heard::Ignored => {}
                }
            }
        };
        let silent = |_| Error::protocol(OPERATION, format!("the terminal did not answer within {timeout:?}"));
        tokio::time::timeout(timeout, connected).await.map_err(silent)??;
        let shared = Arc::new(Mutex::new(shared));
        let (output, receiver) = mpsc::channel(WAITING.max(early.len()));
        let (frames_out, frames_in) = mpsc::channel(WAITING);
        for came in early {
            // There is room for all of them.
            let _ = output.try_send(came);
        }
        let control = TerminalControl { frames: frames_out.downgrade() };
        tokio::spawn(Pump { socket, at, output, frames: frames_in, shared: Arc::clone(&shared) }.run());
        Ok(Self {
            output: receiver,
            piece: Bytes::new(),
            next: since,
            typed: PollSender::new(frames_out),
            control,
            shared,
        })
    }

    /// Offset after the last byte that was read, for [`AttachTerminal::since`](crate::AttachTerminal::since).
    pub fn offset(&self) -> u64 {
        self.next - self.piece.len() as u64
    }

    /// Why it ended, once reading has come to the end.
    pub fn end(&self) -> Option<TerminalEnd> {
        self.shared.lock().end
    }

    /// Exit code of the program, when that is why it ended; -1 when a signal ended it.
    pub fn exit_code(&self) -> Option<i32> {
        match self.end()? {
            TerminalEnd::Exited(code) => Some(code),
            _ => None,
        }
    }

    /// Bytes of output that this client was too slow for.
    pub fn lost_bytes(&self) -> u64 {
        self.shared.lock().lost
    }

    /// Tells the size in characters; each at least 1.
    pub async fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        self.control.resize(columns, rows).await
    }

    /// A handle for sizes and signals that may be used while this is read.
    pub fn control(&self) -> TerminalControl {
        self.control.clone()
    }
}

impl AsyncRead for TerminalStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.piece.is_empty() {
            let Some(came) = ready!(self.output.poll_recv(cx)) else { return Poll::Ready(Ok(())) };
            (self.piece, self.next) = (came.bytes, came.next);
        }
        let count = self.piece.len().min(buffer.remaining());
        buffer.put_slice(&self.piece[..count]);
        self.piece.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TerminalStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.typed.poll_reserve(cx)).map_err(gone)?;
        let count = bytes.len().min(TYPED);
        self.typed.send_item(frames::stdin(&bytes[..count])).map_err(gone)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was typed is on its way: the pump sends each frame at once.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A terminal has one connection for both ways, so what it prints is read on; dropping leaves it.
        Poll::Ready(Ok(()))
    }
}
