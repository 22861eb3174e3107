//! `osb down`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use nix::sys::signal::{Signal, kill};

use super::home::{Home, require_root};
use super::platform;

/// How long the platform may take to stop by itself, and then to die.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// What `osb down` may be told.
#[derive(Debug, Default, Args)]
pub struct Options {
    /// Remove everything of the platform, imported images and keys too.
    #[arg(long)]
    pub purge: bool,
}

/// Ends the platform, every sandbox on it, and what they left.
pub fn run(options: &Options) -> Result<ExitCode> {
    require_root("down")?;
    let home = Home::from_environment();
    if !home.root().exists() {
        anstream::println!("nothing to end: {} does not exist", home.root().display());
        return Ok(ExitCode::SUCCESS);
    }
    end(&home, options.purge)?;
    anstream::println!("the platform has ended, and with it every sandbox");
    Ok(ExitCode::SUCCESS)
}

/// Stops the process that holds the directory, then removes what it made.
pub fn end(home: &Home, purge: bool) -> Result<()> {
    if let Some(pid) = home.holder() {
        kill(pid, Signal::SIGTERM).with_context(|| format!("cannot stop process {pid}"))?;
        if !home.wait_unheld(STOP_LIMIT)? {
            kill(pid, Signal::SIGKILL).with_context(|| format!("cannot kill process {pid}"))?;
            if !home.wait_unheld(STOP_LIMIT)? {
                bail!("process {pid} does not end; look at it with `ps -p {pid}`, then run `osb down` again");
            }
        }
    }
    let lock = home.lock()?;
    platform::remove(home)?;
    drop(lock);
    if purge {
        std::fs::remove_dir_all(home.root()).with_context(|| format!("cannot remove {}", home.root().display()))?;
    }
    Ok(())
}
