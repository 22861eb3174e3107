//! Shells that stay: variables, functions and the directory live from run to run.

use std::collections::BTreeMap;

use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::{
    EventStream, Execution, Result, RunCommand, body, client::segment, commands, execd::Execd, transport::Retry,
};

/// The bash sessions of one sandbox.
///
/// ```no_run
/// # async fn f(sandbox: opensandbox::Sandbox) -> opensandbox::Result<()> {
/// let session = sandbox.sessions().create().await?;
/// session.run("cd /tmp; export NAME=world").await?;
/// let said = session.run("echo hello $NAME from $PWD").await?;
/// assert_eq!(said.stdout_text(), "hello world from /tmp");
/// session.close().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Sessions {
    execd: Execd,
}

/// One bash session.
#[derive(Debug, Clone)]
pub struct BashSession {
    execd: Execd,
    id: String,
}

/// How a session is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Its id.
    #[serde(rename = "session_id")]
    pub id: String,
    /// Its directory, as far as the last whole run tells.
    #[serde(default)]
    pub cwd: String,
    /// The execution that it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<String>,
}

#[derive(Serialize)]
struct Create<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    cwd: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    envs: &'a BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Created {
    session_id: String,
}

impl Sessions {
    pub(crate) fn new(execd: Execd) -> Self {
        Self { execd }
    }

    /// A new session in the sandbox's directory.
    pub async fn create(&self) -> Result<BashSession> {
        self.create_with(None, &BTreeMap::new()).await
    }

    /// A new session in a directory, which is made if it is missing, with variables over the sandbox's own.
    pub async fn create_with(&self, cwd: Option<&str>, envs: &BTreeMap<String, String>) -> Result<BashSession> {
        let call = self.execd.call("create session", Retry::Unsent);
        let answer = self.execd.send(call, Method::POST, "/session", |r| r.json(&Create { cwd, envs })).await?;
        let created: Created = body::json(answer).await?;
        Ok(self.attach(created.session_id))
    }

    /// A handle on a session that exists, without asking whether it does.
    pub fn attach(&self, id: impl Into<String>) -> BashSession {
        BashSession { execd: self.execd.clone(), id: id.into() }
    }

    /// Those that there are.
    pub async fn list(&self) -> Result<Vec<SessionInfo>> {
        let call = self.execd.call("list sessions", Retry::Idempotent);
        body::json(self.execd.send(call, Method::GET, "/session", |r| r).await?).await
    }
}

impl BashSession {
    /// Its id, for [`Sessions::attach`].
    pub fn id(&self) -> &str {
        &self.id
    }

    fn path(&self) -> String {
        format!("/session/{}", segment(&self.id))
    }

    /// Runs shell text in it and waits for its end. Of a [`RunCommand`] it takes text, directory (for this run only),
    /// timeout and how output is kept. One run at a time: another is refused with `SESSION_BUSY`.
    pub async fn run(&self, command: impl Into<RunCommand>) -> Result<Execution> {
        let command = command.into();
        let limit = command.output_limit();
        self.stream(command).await?.collect_execution(limit).await
    }

    /// As [`Self::run`], giving the events as they come.
    pub async fn stream(&self, command: impl Into<RunCommand>) -> Result<EventStream> {
        let (request, exact) = command.into().session_request()?;
        let path = format!("{}/run", self.path());
        let answer = commands::start(&self.execd, "run in session", &path, &request.published, exact).await?;
        Ok(EventStream::new(self.execd.clone(), answer, exact, false))
    }

    /// How it is.
    pub async fn info(&self) -> Result<SessionInfo> {
        let call = self.execd.call("get session", Retry::Idempotent);
        body::json(self.execd.send(call, Method::GET, &self.path(), |r| r).await?).await
    }

    /// Ends it and what runs in it.
    pub async fn close(&self) -> Result<()> {
        let call = self.execd.call("close session", Retry::Idempotent);
        self.execd.send(call, Method::DELETE, &self.path(), |r| r).await.map(drop)
    }
}
