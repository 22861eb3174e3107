//! Commands in a sandbox.

mod event;
mod execution;
mod request;
mod stream;

use api_types::{execd::CommandStatus, names::headers};
use bytes::Bytes;
pub use event::{Event, ExecutionError, OutputMessage};
pub use execution::Execution;
pub use request::RunCommand;
use reqwest::{Method, RequestBuilder};
pub use stream::EventStream;

use crate::{
    Result, body,
    client::segment,
    execd::Execd,
    transport::{Answer, Retry},
};

/// Most bytes taken of a log in one call.
const MAX_LOGS: u64 = 64 << 20;

/// Running commands in one sandbox.
///
/// ```no_run
/// # async fn f(sandbox: opensandbox::Sandbox) -> opensandbox::Result<()> {
/// let execution = sandbox.commands().run("echo hello; exit 3").await?;
/// assert_eq!(execution.stdout_text(), "hello");
/// assert_eq!(execution.exit_code, Some(3));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Commands {
    execd: Execd,
}

/// A part of a background command's output.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommandLogs {
    /// The bytes from the cursor that was asked for to the current end.
    pub content: Bytes,
    /// Where the next part begins.
    pub cursor: u64,
}

impl Commands {
    pub(crate) fn new(execd: Execd) -> Self {
        Self { execd }
    }

    /// Runs shell text and waits for its end. A command that fails is an [`Execution`] with its
    /// exit code, not an error.
    pub async fn run(&self, command: impl Into<String>) -> Result<Execution> {
        self.run_with(RunCommand::shell(command)).await
    }

    /// Runs a command as described and waits for its end, or, in the background, for its start.
    ///
    /// ```no_run
    /// # async fn f(sandbox: opensandbox::Sandbox) -> opensandbox::Result<()> {
    /// use std::time::Duration;
    /// use opensandbox::RunCommand;
    ///
    /// let command = RunCommand::argv(["make", "-j2"]).cwd("/src").env("CC", "gcc").timeout(Duration::from_secs(60));
    /// let execution = sandbox.commands().run_with(command).await?;
    /// # let _ = execution; Ok(()) }
    /// ```
    pub async fn run_with(&self, command: RunCommand) -> Result<Execution> {
        let limit = command.output_limit();
        self.stream(command).await?.collect_execution(limit).await
    }

    /// Runs a command and gives its events as they come. A connection that breaks is made anew and the events go on
    /// where they were.
    ///
    /// Dropping the stream does not stop the command: [`Self::interrupt`] does.
    ///
    /// ```no_run
    /// # async fn f(sandbox: opensandbox::Sandbox) -> opensandbox::Result<()> {
    /// use futures::TryStreamExt;
    /// use opensandbox::Event;
    ///
    /// let mut events = sandbox.commands().stream("make").await?;
    /// while let Some(event) = events.try_next().await? {
    ///     match event {
    ///         Event::Stdout(line) => println!("{}", line.text()),
    ///         Event::Stderr(line) => eprintln!("{}", line.text()),
    ///         Event::Failed(error) => eprintln!("exit code {:?}", error.exit_code()),
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn stream(&self, command: impl Into<RunCommand>) -> Result<EventStream> {
        const OPERATION: &str = "run command";
        let command = command.into();
        let exact = command.is_exact();
        let request = command.request()?;
        // A command must not run twice, so only a connection that was never made is tried again.
        let answer = start(&self.execd, OPERATION, "/command", &request, exact).await?;
        let once = request.background() || request.kill_on_disconnect == Some(true);
        Ok(EventStream::new(self.execd.clone(), answer, exact, once))
    }

    /// The events of an execution that was started before, also by another program, from a place on:
    /// [`EventStream::cursor`] of an earlier stream, or nothing for the beginning.
    ///
    /// ```no_run
    /// # async fn f(sandbox: opensandbox::Sandbox) -> opensandbox::Result<()> {
    /// let commands = sandbox.commands();
    /// let started = commands.run_with(opensandbox::RunCommand::shell("make").background()).await?;
    /// let execution = commands.follow(&started.id, None).await?.collect_execution(1 << 20).await?;
    /// println!("{:?}", execution.exit_code);
    /// # Ok(()) }
    /// ```
    pub async fn follow(&self, execution: &str, cursor: Option<&str>) -> Result<EventStream> {
        self.follow_as(execution, cursor, false).await
    }

    /// As [`Self::follow`], with the output as the bytes that were written instead of lines.
    pub async fn follow_exact(&self, execution: &str, cursor: Option<&str>) -> Result<EventStream> {
        self.follow_as(execution, cursor, true).await
    }

    async fn follow_as(&self, execution: &str, cursor: Option<&str>, exact: bool) -> Result<EventStream> {
        let place = cursor.unwrap_or("0");
        let answer = stream::open(&self.execd, execution, place, exact).await?;
        Ok(EventStream::at(self.execd.clone(), answer, place, exact))
    }

    /// Writes to the standard input of an execution that was started with
    /// [`RunCommand::open_stdin`]; `end` closes it after that.
    ///
    /// ```no_run
    /// # async fn f(sandbox: opensandbox::Sandbox) -> opensandbox::Result<()> {
    /// use futures::TryStreamExt;
    /// use opensandbox::{Event, RunCommand};
    ///
    /// let commands = sandbox.commands();
    /// let mut events = commands.stream(RunCommand::shell("sort").open_stdin()).await?;
    /// if let Some(Event::Started { id, .. }) = events.try_next().await? {
    ///     commands.write_stdin(&id, "b\na\n", true).await?;
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn write_stdin(&self, execution: &str, bytes: impl Into<Bytes>, end: bool) -> Result<()> {
        let call = self.execd.call("write to command", Retry::Unsent);
        let path = format!("/command/{}/stdin?end={end}", segment(execution));
        let bytes = bytes.into();
        self.execd.send(call, Method::POST, &path, |r| r.body(bytes.clone())).await.map(drop)
    }

    /// How an execution is doing, or how it ended.
    pub async fn status(&self, execution: &str) -> Result<CommandStatus> {
        let call = self.execd.call("get command status", Retry::Idempotent);
        let path = format!("/command/status/{}", segment(execution));
        body::json(self.execd.send(call, Method::GET, &path, |r| r).await?).await
    }

    /// The output of a background command from byte `cursor` on; 0 is the beginning.
    ///
    /// ```no_run
    /// # async fn f(sandbox: opensandbox::Sandbox) -> opensandbox::Result<()> {
    /// let commands = sandbox.commands();
    /// let started = commands.run_with(opensandbox::RunCommand::shell("make").background()).await?;
    /// let first = commands.logs(&started.id, 0).await?;
    /// let more = commands.logs(&started.id, first.cursor).await?;
    /// # let _ = more; Ok(()) }
    /// ```
    pub async fn logs(&self, execution: &str, cursor: u64) -> Result<CommandLogs> {
        let call = self.execd.call("get command logs", Retry::Idempotent);
        let path = format!("/command/{}/logs?cursor={cursor}", segment(execution));
        let answer = self.execd.send(call, Method::GET, &path, |r| r).await?;
        let next = answer.response.headers().get(headers::TAIL_CURSOR).and_then(|v| v.to_str().ok()?.parse().ok());
        let content = body::bytes(answer, MAX_LOGS, "read on from a later cursor").await?;
        Ok(CommandLogs { cursor: next.unwrap_or(cursor + content.len() as u64), content })
    }

    /// Stops an execution: its process group is asked to end, then made to.
    pub async fn interrupt(&self, execution: &str) -> Result<()> {
        let call = self.execd.call("interrupt command", Retry::Unsent);
        self.execd.send(call, Method::DELETE, "/command", |r| r.query(&[("id", execution)])).await.map(drop)
    }
}

/// Starts an execution that is answered with its stream.
pub(crate) async fn start(
    execd: &Execd,
    operation: &'static str,
    path: &str,
    body: &impl serde::Serialize,
    exact: bool,
) -> Result<Answer> {
    let path = if exact { format!("{path}?encoding=base64") } else { path.to_owned() };
    let call = execd.streaming(operation, Retry::Unsent);
    let request = |r: RequestBuilder| r.header(reqwest::header::ACCEPT, "text/event-stream").json(body);
    execd.send(call, Method::POST, &path, request).await
}
