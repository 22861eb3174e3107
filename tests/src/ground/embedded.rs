//! The embedded ground: an `osb up` of the case's own.

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use kube::Client;

use super::{Component, Environment};
use crate::platform::Platform;

/// The example's pool, as it lies there.
const SEED: &str = include_str!("../../../examples/pool-agent-production.yaml");

/// One platform. Controller, server and API are one process, so they die together.
pub struct Embedded {
    platform: Mutex<Option<Platform>>,
}

impl Embedded {
    /// Starts a platform in which the machine stands in for the pools' image, and for no other.
    pub fn start() -> Result<Self> {
        Ok(Self { platform: Mutex::new(Some(Platform::start_with(&["--stand-in", "nginx:latest=host"])?)) })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Platform>> {
        self.platform.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, ask: impl FnOnce(&mut Platform) -> T) -> Result<T> {
        self.lock().as_mut().map(ask).context("the platform has ended")
    }
}

#[async_trait]
impl Environment for Embedded {
    fn namespace(&self) -> &str {
        "default"
    }

    fn domain(&self) -> String {
        self.with(|p| p.domain().to_owned()).unwrap_or_default()
    }

    fn api_key(&self) -> String {
        self.with(|p| p.api_key().to_owned()).unwrap_or_default()
    }

    async fn client(&self) -> Result<Client> {
        let kubeconfig = self.with(|p| p.kubeconfig())?;
        crate::platform::client(&kubeconfig).await
    }

    fn kubectl(&self) -> Command {
        self.with(|p| p.kubectl()).unwrap_or_else(|_| Command::new("false"))
    }

    fn osb(&self) -> Result<Command> {
        self.with(|p| p.osb())?
    }

    async fn seed_pool(&self) -> Result<()> {
        self.kubectl_ok(&["apply", "-f", "-"], SEED).map(drop)
    }

    async fn crash(&self, _: Component) -> Result<()> {
        self.with(|p| p.crash())?
    }

    async fn recover(&self, _: Component) -> Result<()> {
        self.with(Platform::start_again)?
    }

    fn processes(&self) -> Option<Result<usize>> {
        let pid = |name: &std::ffi::OsStr| name.to_str().is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
        let count = std::fs::read_dir("/proc")
            .map(|entries| entries.filter(|e| e.as_ref().is_ok_and(|e| pid(&e.file_name()))).count());
        Some(count.context("cannot read /proc"))
    }

    fn gather(&self, directory: &Path) -> Result<()> {
        let home = self.with(|p| p.home().to_owned())?;
        crate::evidence::gather(|| self.kubectl(), &["default"], directory)?;
        std::fs::copy(home.join("osb.log"), directory.join("osb.log")).context("no osb.log")?;
        Ok(())
    }

    async fn end(&self) -> Result<()> {
        let platform = self.lock().take();
        platform.map_or(Ok(()), Platform::end)
    }
}
