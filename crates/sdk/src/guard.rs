//! A guard that ends a sandbox when it goes out of scope, without waiting for it.

use std::{ops::Deref, sync::Arc};

use crate::{Client, Result, Sandbox};

/// A sandbox that is killed when this is dropped. The request goes out in the background, on the runtime that the
/// client was made on, so dropping never waits and may happen on any thread; when that runtime has ended, the sandbox
/// lives on until it expires.
#[derive(Debug)]
#[must_use = "the sandbox is killed when this is dropped"]
pub struct KillOnDrop {
    sandbox: Option<Sandbox>,
}

impl KillOnDrop {
    pub(crate) fn new(sandbox: Sandbox) -> Self {
        Self { sandbox: Some(sandbox) }
    }

    /// Lets the sandbox live, and gives it back.
    pub fn disarm(mut self) -> Sandbox {
        #[expect(clippy::expect_used, reason = "only disarm, kill and drop take it, and each ends the guard")]
        self.sandbox.take().expect("a guard has its sandbox until it ends")
    }

    /// Kills the sandbox now and tells whether that was done.
    pub async fn kill(self) -> Result<()> {
        let sandbox = self.disarm();
        let killed = sandbox.kill().await;
        if killed.is_err() {
            kill_in_background(sandbox.client(), &Arc::from(sandbox.id()));
        }
        killed
    }
}

impl Deref for KillOnDrop {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        #[expect(clippy::expect_used, reason = "only disarm, kill and drop take it, and each ends the guard")]
        self.sandbox.as_ref().expect("a guard has its sandbox until it ends")
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(sandbox) = self.sandbox.take() {
            kill_in_background(sandbox.client(), &Arc::from(sandbox.id()));
            sandbox.set_kill_on_drop(false);
        }
    }
}

/// Kills a sandbox without waiting for it.
pub(crate) fn kill_in_background(client: &Client, id: &Arc<str>) {
    let (killer, id) = (client.clone(), Arc::clone(id));
    drop(client.runtime().spawn(async move {
        if let Err(error) = killer.kill(&id).await
            && !error.is_not_found()
        {
            tracing::warn!(sandbox = %id, %error, "a dropped sandbox could not be killed");
        }
    }));
}
