//! One sandbox.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use api_types::{
    explain::Explanation,
    lifecycle::{Endpoint, Sandbox as SandboxInfo},
};
use jiff::Timestamp;

use crate::{
    Client, Commands, Error, Files, KillOnDrop, Result, SandboxBuilder, Sessions, Terminals,
    execd::{Execd, NotReady},
};

/// One sandbox. Cheap to clone; all clones are the same sandbox.
///
/// Dropping it does nothing to the sandbox, unless it was built with
/// [`SandboxBuilder::kill_on_drop`]; [`Self::kill`] ends it.
#[derive(Debug, Clone)]
pub struct Sandbox {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    id: Arc<str>,
    execd: Execd,
    warnings: Vec<String>,
    kill_on_drop: AtomicBool,
}

impl Sandbox {
    /// Starts the description of a sandbox made from an image, or, with
    /// [`SandboxBuilder::pool`], taken from a pool.
    pub fn builder(image: impl Into<String>) -> SandboxBuilder {
        SandboxBuilder::new(Some(image.into()))
    }

    /// Starts the description of a sandbox taken from a pool.
    ///
    /// ```no_run
    /// # async fn f() -> opensandbox::Result<()> {
    /// let sandbox = opensandbox::Sandbox::from_pool("agent-pool").create().await?;
    /// # let _ = sandbox; Ok(()) }
    /// ```
    pub fn from_pool(pool: impl Into<String>) -> SandboxBuilder {
        SandboxBuilder::new(None).pool(pool)
    }

    /// A handle on a sandbox that exists, with the connection the environment describes.
    ///
    /// ```no_run
    /// # async fn f() -> opensandbox::Result<()> {
    /// let sandbox = opensandbox::Sandbox::connect("b1f3").await?;
    /// println!("{}", sandbox.info().await?.status.state);
    /// # Ok(()) }
    /// ```
    pub async fn connect(id: impl Into<String>) -> Result<Self> {
        Client::from_env()?.connect(id).await
    }

    pub(crate) fn new(client: Client, id: String, endpoint: Option<&Endpoint>, kill_on_drop: bool) -> Self {
        let id: Arc<str> = id.into();
        let execd = Execd::new(client.clone(), Arc::clone(&id), endpoint);
        Self {
            inner: Arc::new(Inner {
                client,
                id,
                execd,
                warnings: Vec::new(),
                kill_on_drop: AtomicBool::new(kill_on_drop),
            }),
        }
    }

    pub(crate) fn with_warnings(mut self, warnings: Vec<String>) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.warnings = warnings;
        }
        self
    }

    pub(crate) fn set_kill_on_drop(&self, yes: bool) {
        self.inner.kill_on_drop.store(yes, Ordering::Relaxed);
    }

    pub(crate) fn execd(&self) -> &Execd {
        &self.inner.execd
    }

    /// The id.
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// What was asked for at create and could not take effect, e.g. an image with a pool.
    pub fn warnings(&self) -> &[String] {
        &self.inner.warnings
    }

    /// The connection it is reached by.
    pub fn client(&self) -> &Client {
        &self.inner.client
    }

    /// Running commands in it.
    pub fn commands(&self) -> Commands {
        Commands::new(self.inner.execd.clone())
    }

    /// Shells that stay from run to run.
    pub fn sessions(&self) -> Sessions {
        Sessions::new(self.inner.execd.clone())
    }

    /// Its terminals.
    pub fn terminals(&self) -> Terminals {
        Terminals::new(self.inner.execd.clone())
    }

    /// A guard that kills it, in the background, when it is dropped.
    ///
    /// ```no_run
    /// # async fn f(sandbox: opensandbox::Sandbox) -> opensandbox::Result<()> {
    /// let sandbox = sandbox.kill_on_drop();
    /// sandbox.commands().run("make").await?; // also when this fails, or is cancelled, the sandbox ends
    /// # Ok(()) }
    /// ```
    pub fn kill_on_drop(self) -> KillOnDrop {
        KillOnDrop::new(self)
    }

    /// Its files.
    pub fn files(&self) -> Files {
        Files::new(self.inner.execd.clone())
    }

    /// What the platform knows of it.
    pub async fn info(&self) -> Result<SandboxInfo> {
        self.inner.client.get(self.id()).await
    }

    /// Where its time went, what it waits for, and how it ended.
    ///
    /// ```no_run
    /// # async fn f(sandbox: opensandbox::Sandbox) -> opensandbox::Result<()> {
    /// for step in sandbox.explain().await?.timeline {
    ///     println!("{} {}", step.at, step.name);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn explain(&self) -> Result<Explanation> {
        self.inner.client.explain(self.id()).await
    }

    /// Lets it live for `timeout` from now. Gives its new end.
    pub async fn renew(&self, timeout: Duration) -> Result<Timestamp> {
        self.inner.client.renew(self.id(), timeout).await
    }

    /// Sets metadata; a value of `None` removes its key.
    pub async fn patch_metadata(&self, patch: &BTreeMap<String, Option<String>>) -> Result<SandboxInfo> {
        self.inner.client.patch_metadata(self.id(), patch).await
    }

    /// Where one of its ports is reached, and the headers to send there.
    ///
    /// ```no_run
    /// # async fn f(sandbox: opensandbox::Sandbox) -> opensandbox::Result<()> {
    /// let web = sandbox.endpoint(80).await?;
    /// println!("http://{}", web.endpoint);
    /// # Ok(()) }
    /// ```
    pub async fn endpoint(&self, port: u16) -> Result<Endpoint> {
        self.inner.client.endpoint(self.id(), port).await
    }

    /// Waits until its daemon answers, at most this long.
    pub async fn wait_until_ready(&self, timeout: Duration) -> Result<()> {
        let ready = self.inner.execd.wait_ready(tokio::time::Instant::now() + timeout).await;
        ready.map_err(|why| match why {
            NotReady::Never(error) => error,
            NotReady::InTime(last) => {
                Error::NotReady { sandbox: self.id().to_owned(), after: timeout, last: last.map(Box::new) }
            }
        })
    }

    /// Whether its daemon answers now.
    pub async fn is_healthy(&self) -> bool {
        self.inner.execd.ping(self.inner.client.config().request_timeout).await.is_ok()
    }

    /// Ends it. Its pod goes back to its pool or is deleted.
    pub async fn kill(&self) -> Result<()> {
        self.inner.client.kill(self.id()).await?;
        self.set_kill_on_drop(false);
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.kill_on_drop.load(Ordering::Relaxed) {
            return;
        }
        crate::guard::kill_in_background(&self.client, &self.id);
    }
}
