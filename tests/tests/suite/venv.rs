//! The published Python SDK, in an environment that the tests make once and keep.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

/// The version that the platform answers to.
const SDK: &str = "opensandbox==1.1.1";

/// The environment's Python.
pub fn python() -> Result<PathBuf> {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("venv-opensandbox-1.1.1");
    let python = venv.join("bin/python");
    let ready = venv.join("ready");
    if !ready.exists() {
        let made = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv).status().context("no python3")?;
        ensure!(made.success(), "python3 -m venv failed");
        let installed = Command::new(&python).args(["-m", "pip", "install", "--quiet", SDK]).status()?;
        ensure!(installed.success(), "pip install {SDK} failed");
        std::fs::write(&ready, SDK)?;
    }
    Ok(python)
}
