//! The same calls for programs without an async runtime: each waits for its end.
//!
//! ```no_run
//! # fn main() -> opensandbox::Result<()> {
//! use opensandbox::{Sandbox, blocking};
//!
//! let client = blocking::Client::from_env()?;
//! let sandbox = client.create(Sandbox::from_pool("agent-pool").env("AGENT_ID", "agent-1"))?;
//! let said = sandbox.commands().run("echo hello from $AGENT_ID")?;
//! println!("{}", said.stdout_text());
//! sandbox.kill()?;
//! # Ok(()) }
//! ```
//!
//! It is a thin face over the async crate, on a runtime of its own; what has no method here is had with
//! [`Client::block_on`]. Inside an async runtime every call is refused, since it would hold that runtime up.

mod commands;
mod files;

use std::{sync::Arc, time::Duration};

use api_types::{
    execd::Metrics,
    lifecycle::{Endpoint, ListSandboxesResponse, Sandbox as SandboxInfo},
};
pub use commands::{BashSession, Commands, Events};
pub use files::Files;
use jiff::Timestamp;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::{ConnectionConfig, Error, ListSandboxes, Port, Result, SandboxBuilder};

/// The runtime that the calls run on. It goes without waiting for anything.
#[derive(Debug)]
struct Face(Option<Runtime>);

impl Drop for Face {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Runs calls to their end.
#[derive(Debug, Clone)]
struct Waiter(Arc<Face>);

impl Waiter {
    fn new() -> Result<Self> {
        // One thread beside the caller's keeps connections alive between calls.
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("opensandbox").enable_all().build();
        let runtime = runtime.map_err(|source| Error::Io { operation: "start runtime", source })?;
        Ok(Self(Arc::new(Face(Some(runtime)))))
    }

    fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        if Handle::try_current().is_ok() {
            return Err(Error::invalid("a blocking call inside an async runtime; use the async call and await it"));
        }
        match &self.0.0 {
            Some(runtime) => runtime.block_on(work),
            None => Err(Error::invalid("the runtime has ended")),
        }
    }
}

/// A connection to the platform, see [`crate::Client`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    inner: crate::Client,
    waiter: Waiter,
}

/// One sandbox, see [`crate::Sandbox`]. Cheap to clone; all clones are the same sandbox.
#[derive(Debug, Clone)]
pub struct Sandbox {
    inner: crate::Sandbox,
    waiter: Waiter,
}

impl Client {
    /// For one configuration. Opens no connection yet.
    pub fn new(config: ConnectionConfig) -> Result<Self> {
        let waiter = Waiter::new()?;
        let inner = waiter.wait(async { crate::Client::new(config) })?;
        Ok(Self { inner, waiter })
    }

    /// For the environment, see [`ConnectionConfig::from_env`].
    pub fn from_env() -> Result<Self> {
        Self::new(ConnectionConfig::from_env()?)
    }

    /// The async client, whose calls [`Self::block_on`] waits for.
    pub fn inner(&self) -> &crate::Client {
        &self.inner
    }

    /// Waits for any call of the async crate.
    ///
    /// ```no_run
    /// # fn f(client: opensandbox::blocking::Client) -> opensandbox::Result<()> {
    /// let pools = client.block_on(client.inner().pools().list())?;
    /// # let _ = pools; Ok(()) }
    /// ```
    pub fn block_on<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.waiter.wait(call)
    }

    /// Makes a sandbox with this connection and waits until it answers.
    pub fn create(&self, sandbox: SandboxBuilder) -> Result<Sandbox> {
        let inner = self.waiter.wait(sandbox.client(&self.inner).create())?;
        Ok(Sandbox { inner, waiter: self.waiter.clone() })
    }

    /// A handle on a sandbox that exists, without asking whether it does.
    pub fn attach(&self, id: impl Into<String>) -> Sandbox {
        Sandbox { inner: self.inner.attach(id), waiter: self.waiter.clone() }
    }

    /// A handle on a sandbox that exists and whose daemon answers.
    pub fn connect(&self, id: impl Into<String>) -> Result<Sandbox> {
        let inner = self.waiter.wait(self.inner.connect(id))?;
        Ok(Sandbox { inner, waiter: self.waiter.clone() })
    }

    /// What is known of a sandbox.
    pub fn get(&self, id: &str) -> Result<SandboxInfo> {
        self.waiter.wait(self.inner.get(id))
    }

    /// One page of sandboxes.
    pub fn list(&self, which: ListSandboxes) -> Result<ListSandboxesResponse> {
        self.waiter.wait(self.inner.list(which))
    }

    /// Ends a sandbox.
    pub fn kill(&self, id: &str) -> Result<()> {
        self.waiter.wait(self.inner.kill(id))
    }
}

impl Sandbox {
    /// The id.
    pub fn id(&self) -> &str {
        self.inner.id()
    }

    /// The async handle, whose calls [`Client::block_on`] waits for.
    pub fn inner(&self) -> &crate::Sandbox {
        &self.inner
    }

    /// Running commands in it.
    pub fn commands(&self) -> Commands {
        Commands { inner: self.inner.commands(), waiter: self.waiter.clone() }
    }

    /// Its files.
    pub fn files(&self) -> Files {
        Files { inner: self.inner.files(), waiter: self.waiter.clone() }
    }

    /// A new shell that stays from run to run.
    pub fn session(&self) -> Result<BashSession> {
        let inner = self.waiter.wait(self.inner.sessions().create())?;
        Ok(BashSession { inner, waiter: self.waiter.clone() })
    }

    /// What the platform knows of it.
    pub fn info(&self) -> Result<SandboxInfo> {
        self.waiter.wait(self.inner.info())
    }

    /// Lets it live for `timeout` from now. Gives its new end.
    pub fn renew(&self, timeout: Duration) -> Result<Timestamp> {
        self.waiter.wait(self.inner.renew(timeout))
    }

    /// Where one of its ports is reached, and the headers to send there.
    pub fn endpoint(&self, port: u16) -> Result<Endpoint> {
        self.waiter.wait(self.inner.endpoint(port))
    }

    /// The ports that are listened to.
    pub fn ports(&self) -> Result<Vec<Port>> {
        self.waiter.wait(self.inner.ports())
    }

    /// Processor and memory in use.
    pub fn metrics(&self) -> Result<Metrics> {
        self.waiter.wait(self.inner.metrics())
    }

    /// Ends it.
    pub fn kill(&self) -> Result<()> {
        self.waiter.wait(self.inner.kill())
    }
}
