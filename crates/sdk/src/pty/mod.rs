//! Terminals in a sandbox: a shell or program behind a pseudo terminal that lives on when nobody is at it.

mod frames;
mod pump;
mod stream;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{Method, StatusCode, header};
use serde::{Deserialize, Serialize};
pub use stream::{TerminalControl, TerminalEnd, TerminalStream};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

use crate::{Error, Result, body, client::segment, execd::Execd, transport::Retry};

/// The terminals of one sandbox.
///
/// ```no_run
/// # async fn f(sandbox: opensandbox::Sandbox) -> anyhow::Result<()> {
/// use opensandbox::NewTerminal;
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// let terminal = sandbox.terminals().create(NewTerminal::new().size(80, 24)).await?;
/// let mut stream = terminal.attach().await?;
/// stream.write_all(b"echo hello; exit 3\n").await?;
/// let mut output = Vec::new();
/// stream.read_to_end(&mut output).await?;
/// assert_eq!(stream.exit_code(), Some(3));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Terminals {
    execd: Execd,
}

/// A terminal to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[must_use = "nothing is made before it is given to create"]
pub struct NewTerminal {
    #[serde(skip_serializing_if = "Option::is_none")]
    cwd: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cols: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<u16>,
}

impl NewTerminal {
    /// One with the sandbox's shell, in its directory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the directory, which is made if it is missing.
    pub fn cwd(mut self, directory: impl Into<String>) -> Self {
        self.cwd = Some(directory.into());
        self
    }

    /// Runs this shell text instead of an interactive shell.
    pub fn command(mut self, command: impl Into<String>) -> Self {
        self.command = Some(command.into());
        self
    }

    /// Sets the size in characters; each at least 1.
    pub fn size(mut self, columns: u16, rows: u16) -> Self {
        (self.cols, self.rows) = (Some(columns), Some(rows));
        self
    }
}

/// How a terminal is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TerminalInfo {
    /// Its id.
    #[serde(rename = "session_id")]
    pub id: String,
    /// Whether its program runs. It starts when somebody first attaches.
    pub running: bool,
    /// Offset after the last byte it wrote.
    #[serde(default)]
    pub output_offset: u64,
}

/// One terminal. Dropping it changes nothing in the sandbox.
#[derive(Debug, Clone)]
pub struct Terminal {
    execd: Execd,
    id: String,
}

/// How to come to a terminal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use = "it does nothing before it is given to attach_with"]
pub struct AttachTerminal {
    since: Option<u64>,
    takeover: bool,
    viewer: bool,
}

impl AttachTerminal {
    /// To type at a terminal nobody types at, and see from the start what is still kept of its output.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sees the output from this offset on, [`TerminalStream::offset`] of an earlier stream, as far as it is kept.
    pub fn since(mut self, offset: u64) -> Self {
        self.since = Some(offset);
        self
    }

    /// Takes the place of whoever types.
    pub fn takeover(mut self) -> Self {
        self.takeover = true;
        self
    }

    /// Only watches; any number may.
    pub fn viewer(mut self) -> Self {
        self.viewer = true;
        self
    }
}

#[derive(Deserialize)]
struct Created {
    session_id: String,
}

impl Terminals {
    pub(crate) fn new(execd: Execd) -> Self {
        Self { execd }
    }

    /// A new terminal. Its program starts when somebody first attaches.
    pub async fn create(&self, terminal: NewTerminal) -> Result<Terminal> {
        let call = self.execd.call("create terminal", Retry::Unsent);
        let answer = self.execd.send(call, Method::POST, "/pty", |r| r.json(&terminal)).await?;
        let created: Created = body::json(answer).await?;
        Ok(self.get(created.session_id))
    }

    /// A handle on a terminal that exists, without asking whether it does.
    pub fn get(&self, id: impl Into<String>) -> Terminal {
        Terminal { execd: self.execd.clone(), id: id.into() }
    }

    /// Those that there are.
    pub async fn list(&self) -> Result<Vec<TerminalInfo>> {
        let call = self.execd.call("list terminals", Retry::Idempotent);
        body::json(self.execd.send(call, Method::GET, "/pty", |r| r).await?).await
    }
}

impl Terminal {
    /// Its id, for [`Terminals::get`].
    pub fn id(&self) -> &str {
        &self.id
    }

    fn path(&self) -> String {
        format!("/pty/{}", segment(&self.id))
    }

    /// How it is.
    pub async fn info(&self) -> Result<TerminalInfo> {
        let call = self.execd.call("get terminal", Retry::Idempotent);
        body::json(self.execd.send(call, Method::GET, &self.path(), |r| r).await?).await
    }

    /// Comes to it to type, and sees what is still kept of its output.
    pub async fn attach(&self) -> Result<TerminalStream> {
        self.attach_with(AttachTerminal::new()).await
    }

    /// Comes to it as described. Somebody else who types there is a refusal, `ALREADY_CONNECTED`, unless
    /// [`AttachTerminal::takeover`] or [`AttachTerminal::viewer`] is set.
    pub async fn attach_with(&self, how: AttachTerminal) -> Result<TerminalStream> {
        const OPERATION: &str = "attach to terminal";
        let key = STANDARD.encode(uuid::Uuid::new_v4().as_bytes());
        let mut query = Vec::new();
        query.extend(how.since.map(|offset| ("since", offset.to_string())));
        query.extend(how.takeover.then(|| ("takeover", "1".to_owned())));
        query.extend(how.viewer.then(|| ("viewer", "1".to_owned())));
        let call = self.execd.streaming(OPERATION, Retry::Unsent);
        let path = format!("{}/ws", self.path());
        let answer = self
            .execd
            .send(call, Method::GET, &path, |request| {
                request
                    .query(&query)
                    .header(header::CONNECTION, "Upgrade")
                    .header(header::UPGRADE, "websocket")
                    .header(header::SEC_WEBSOCKET_VERSION, "13")
                    .header(header::SEC_WEBSOCKET_KEY, &key)
            })
            .await?;
        let accept = answer.response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
        let agreed = accept.is_some_and(|accept| accept.as_bytes() == derive_accept_key(key.as_bytes()).as_bytes());
        if answer.response.status() != StatusCode::SWITCHING_PROTOCOLS || !agreed {
            let detail = format!("status {} instead of a WebSocket", answer.response.status().as_u16());
            return Err(Error::protocol(OPERATION, detail));
        }
        let upgraded = answer
            .response
            .upgrade()
            .await
            .map_err(|e| Error::protocol(OPERATION, format!("the connection was not handed over: {e}")))?;
        let socket = WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(pump::config())).await;
        TerminalStream::begin(socket, how.since.unwrap_or(0), self.execd.client().config().request_timeout).await
    }

    /// Ends it and what runs in it.
    pub async fn close(&self) -> Result<()> {
        let call = self.execd.call("close terminal", Retry::Idempotent);
        self.execd.send(call, Method::DELETE, &self.path(), |r| r).await.map(drop)
    }
}
