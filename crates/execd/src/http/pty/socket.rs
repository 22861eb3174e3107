//! `GET /pty/{id}/ws`: a client at a terminal.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::response::Response;
use http::Uri;
use tokio::time::{Instant, sleep_until, timeout};

use super::super::request::Query;
use super::super::{ApiError, App, Shared};
use crate::journal::{Read, ReaderId};
use crate::pty::frames::{self, FromClient, ToClient};
use crate::pty::{Mode, Process, PtyError, Seat, Terminal, signal_number};

/// Bytes of output in one frame.
const CHUNK: usize = 32 << 10;
/// Largest frame of a client.
const FRAME: usize = 1 << 20;
/// Time between our pings.
const PING: Duration = Duration::from_secs(30);
/// Time without any frame of a client after which it counts as gone.
const SILENCE: Duration = Duration::from_secs(60);
/// Time in which a client takes a frame, and a program its input.
const PATIENCE: Duration = Duration::from_secs(10);
/// Close code for a client whose place was taken.
const TAKEN_OVER: u16 = 4001;

struct Wanted {
    mode: Mode,
    since: u64,
    takeover: bool,
    viewer: bool,
}

/// The handler.
pub async fn connect(
    State(app): State<Shared>,
    Path(id): Path<String>,
    uri: Uri,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let query = Query::of(&uri)?;
    let set = |name: &str| matches!(query.get(name), Some("1" | "true"));
    let wanted = Wanted {
        mode: if matches!(query.get("pty"), Some("0" | "false")) { Mode::Pipe } else { Mode::Pty },
        since: query.number("since")?.unwrap_or(0),
        takeover: set("takeover"),
        viewer: set("viewer"),
    };
    let terminal = app.terminals.find(&id)?;
    // Only a client that can really come may push another out.
    if !wanted.viewer && terminal.taken() && !(wanted.takeover && upgrade.is_ok()) {
        return Err(PtyError::Connected.into());
    }
    let upgrade = upgrade.map_err(|e| ApiError::invalid(format!("this route takes WebSocket handshakes: {e}")))?;
    let upgrade = upgrade.read_buffer_size(4096).write_buffer_size(0).max_message_size(FRAME).max_frame_size(FRAME);
    Ok(upgrade.on_upgrade(move |socket| serve(app, terminal, wanted, Client { socket })))
}

struct Client {
    socket: WebSocket,
}

impl Client {
    async fn send(&mut self, message: Message) -> bool {
        matches!(timeout(PATIENCE, self.socket.send(message)).await, Ok(Ok(())))
    }

    async fn say(&mut self, words: ToClient<'_>) -> bool {
        self.send(Message::Text(words.encode().into())).await
    }

    async fn refuse(&mut self, code: &str, error: String) -> bool {
        self.say(ToClient { kind: "error", code: Some(code), error: Some(error), ..ToClient::default() }).await
    }

    async fn close(&mut self, code: u16, reason: &'static str) {
        self.send(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await;
        // The other side's goodbye, if it comes.
        let _ = timeout(Duration::from_secs(1), async { while let Some(Ok(_)) = self.socket.recv().await {} }).await;
    }
}

/// A live reader of the terminal's output; gone when dropped.
struct Reader {
    terminal: Arc<Terminal>,
    id: ReaderId,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.terminal.journal.leave(self.id);
    }
}

async fn serve(app: Arc<App>, terminal: Arc<Terminal>, wanted: Wanted, mut client: Client) {
    let seat = if wanted.viewer { Ok(terminal.watch()) } else { terminal.sit(wanted.takeover) };
    let seat = match seat {
        Ok(seat) => seat,
        Err(error) => {
            client.refuse("ALREADY_CONNECTED", error.to_string()).await;
            return client.close(1000, "already connected").await;
        }
    };
    let process =
        if wanted.viewer { Ok(terminal.process()) } else { terminal.start(wanted.mode, app.command_env()).map(Some) };
    let process = match process {
        Ok(process) => process,
        Err(error) => {
            client.refuse("START_FAILED", error.to_string()).await;
            return client.close(1011, "start failed").await;
        }
    };
    let mode = process.as_ref().map_or(wanted.mode, |process| process.mode);
    let begin = terminal.journal.begin();
    let mut at = wanted.since.max(begin).min(terminal.journal.end());
    let reader = Reader { terminal: terminal.clone(), id: terminal.journal.join(at) };
    if !replay(&terminal, mode, &mut at, &mut client).await {
        return;
    }
    let connected =
        ToClient { kind: "connected", session_id: Some(&terminal.id), mode: Some(mode.name()), ..ToClient::default() };
    if client.say(connected).await {
        live(&terminal, process, seat, reader, at, client).await;
    }
}

/// What was written before. On pipes the streams are told apart: the frame of the replay says only where
/// it begins, the bytes follow as output.
async fn replay(terminal: &Terminal, mode: Mode, at: &mut u64, client: &mut Client) -> bool {
    let end = terminal.journal.end();
    if *at >= end {
        return true;
    }
    if mode == Mode::Pipe {
        if !client.send(Message::Binary(frames::replay(*at, b"").into())).await {
            return false;
        }
        while let Read::Bytes(source, bytes) = terminal.journal.read(*at, end, CHUNK) {
            *at += bytes.len() as u64;
            if !client.send(Message::Binary(frames::output(source, &bytes).into())).await {
                return false;
            }
        }
        return true;
    }
    let (bytes, next, lost) = terminal.journal.read_all(*at, usize::try_from(end - *at).unwrap_or(usize::MAX));
    let frame = frames::replay(*at + lost, &bytes);
    *at = next;
    client.send(Message::Binary(frame.into())).await
}

async fn live(
    terminal: &Arc<Terminal>,
    mut process: Option<Arc<Process>>,
    seat: Seat,
    reader: Reader,
    mut at: u64,
    mut client: Client,
) {
    let evicted = seat.evicted.clone().unwrap_or_default();
    let typing = seat.evicted.is_some();
    let mut ping_at = Instant::now() + PING;
    let mut silent_at = Instant::now() + SILENCE;
    loop {
        let ended = process.as_ref().and_then(|process| process.ended());
        let limit = ended.map_or(u64::MAX, |(_, end)| end);
        match terminal.journal.read(at, limit, CHUNK) {
            Read::Bytes(source, bytes) => {
                at += bytes.len() as u64;
                if !client.send(Message::Binary(frames::output(source, &bytes).into())).await {
                    return;
                }
                terminal.journal.reached(reader.id, at);
                // What the client says is heard between two frames, too.
                if let Some(Some(message)) = futures::FutureExt::now_or_never(client.socket.recv()) {
                    silent_at = Instant::now() + SILENCE;
                    if !hear(message, terminal, process.as_deref(), typing, &mut client).await {
                        return;
                    }
                }
                if evicted.is_cancelled() {
                    return client.close(TAKEN_OVER, "TAKEN_OVER").await;
                }
                continue;
            }
            Read::Lost(to) => {
                terminal.journal.count_lost(to - at);
                let gap = ToClient { kind: "gap", offset: Some(at), bytes: Some(to - at), ..ToClient::default() };
                at = to;
                if !client.say(gap).await {
                    return;
                }
                continue;
            }
            Read::Nothing => {}
        }
        if let Some((code, _)) = ended {
            client.say(ToClient { kind: "exit", exit_code: Some(code), ..ToClient::default() }).await;
            drop(seat);
            return client.close(1000, "process exited").await;
        }
        let mut end = process.as_ref().map(|process| process.end.clone());
        let exit = async {
            match end.as_mut() {
                Some(end) => drop(end.wait_for(Option::is_some).await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = terminal.journal.grown(at) => {
                // One that watches may have come before the process.
                process = process.or_else(|| terminal.process());
            }
            () = exit => {}
            () = evicted.cancelled() => return client.close(TAKEN_OVER, "TAKEN_OVER").await,
            () = terminal.closed.cancelled() => return client.close(1000, "deleted").await,
            () = sleep_until(ping_at) => {
                ping_at = Instant::now() + PING;
                if !client.send(Message::Ping(Vec::new().into())).await { return }
            }
            () = sleep_until(silent_at) => return,
            message = client.socket.recv() => {
                let Some(message) = message else { return };
                silent_at = Instant::now() + SILENCE;
                if !hear(message, terminal, process.as_deref(), typing, &mut client).await { return }
            }
        }
    }
}

/// Does what a client says; false when it has gone.
async fn hear(
    message: Result<Message, axum::Error>,
    terminal: &Terminal,
    process: Option<&Process>,
    typing: bool,
    client: &mut Client,
) -> bool {
    let said = match message {
        Ok(Message::Binary(frame)) => frames::binary(&frame),
        Ok(Message::Text(frame)) => frames::text(&frame),
        Ok(Message::Ping(_) | Message::Pong(_)) => FromClient::Ignored,
        Ok(Message::Close(_)) | Err(_) => return false,
    };
    match said {
        FromClient::Ping => client.say(ToClient { kind: "pong", ..ToClient::default() }).await,
        FromClient::Ignored => true,
        FromClient::Invalid(kind) => {
            client.refuse("INVALID_FRAME", format!("there is no frame of type {kind:?}")).await
        }
        _ if !typing => client.refuse("INVALID_FRAME", "this client only watches".to_owned()).await,
        FromClient::Resize(cols, rows) => {
            terminal.resize((cols, rows));
            true
        }
        FromClient::Signal(name) => match (signal_number(&name), process) {
            (Some(number), Some(process)) => {
                process.signal(number);
                true
            }
            (None, _) => client.refuse("INVALID_FRAME", format!("there is no signal {name:?} to send")).await,
            (_, None) => true,
        },
        FromClient::Stdin(bytes) => match process {
            Some(process) if !process.type_in(bytes, PATIENCE).await => {
                client.refuse("STDIN_WRITE_FAILED", "the process takes no input".to_owned()).await
            }
            _ => true,
        },
    }
}
