//! Commands and sessions, each call to its end.

use api_types::execd::CommandStatus;
use futures::StreamExt;

use super::Waiter;
use crate::{CommandLogs, Event, EventStream, Execution, Result, RunCommand};

/// Running commands in one sandbox, see [`crate::Commands`].
#[derive(Debug, Clone)]
pub struct Commands {
    pub(super) inner: crate::Commands,
    pub(super) waiter: Waiter,
}

/// The events of one execution, see [`EventStream`]. Dropping it does not stop the command.
#[derive(Debug)]
pub struct Events {
    inner: EventStream,
    waiter: Waiter,
}

impl Iterator for Events {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Result<Event>> {
        let next = &mut self.inner;
        self.waiter.wait(async { next.next().await.transpose() }).transpose()
    }
}

impl Commands {
    /// Runs shell text and waits for its end.
    pub fn run(&self, command: impl Into<String>) -> Result<Execution> {
        self.waiter.wait(self.inner.run(command))
    }

    /// Runs a command as described and waits for its end, or, in the background, for its start.
    pub fn run_with(&self, command: RunCommand) -> Result<Execution> {
        self.waiter.wait(self.inner.run_with(command))
    }

    /// Runs a command and gives its events as they come.
    ///
    /// ```no_run
    /// # fn f(sandbox: opensandbox::blocking::Sandbox) -> opensandbox::Result<()> {
    /// for event in sandbox.commands().stream("make")? {
    ///     println!("{:?}", event?);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn stream(&self, command: impl Into<RunCommand>) -> Result<Events> {
        let inner = self.waiter.wait(self.inner.stream(command))?;
        Ok(Events { inner, waiter: self.waiter.clone() })
    }

    /// The events of an execution that was started before, from a place on.
    pub fn follow(&self, execution: &str, cursor: Option<&str>) -> Result<Events> {
        let inner = self.waiter.wait(self.inner.follow(execution, cursor))?;
        Ok(Events { inner, waiter: self.waiter.clone() })
    }

    /// How an execution is doing, or how it ended.
    pub fn status(&self, execution: &str) -> Result<CommandStatus> {
        self.waiter.wait(self.inner.status(execution))
    }

    /// The output of a background command from byte `cursor` on.
    pub fn logs(&self, execution: &str, cursor: u64) -> Result<CommandLogs> {
        self.waiter.wait(self.inner.logs(execution, cursor))
    }

    /// Stops an execution.
    pub fn interrupt(&self, execution: &str) -> Result<()> {
        self.waiter.wait(self.inner.interrupt(execution))
    }
}

/// A shell that stays from run to run, see [`crate::BashSession`].
#[derive(Debug, Clone)]
pub struct BashSession {
    pub(super) inner: crate::BashSession,
    pub(super) waiter: Waiter,
}

impl BashSession {
    /// Its id.
    pub fn id(&self) -> &str {
        self.inner.id()
    }

    /// Runs shell text in it and waits for its end.
    pub fn run(&self, command: impl Into<RunCommand>) -> Result<Execution> {
        self.waiter.wait(self.inner.run(command))
    }

    /// Ends it and what runs in it.
    pub fn close(&self) -> Result<()> {
        self.waiter.wait(self.inner.close())
    }
}
