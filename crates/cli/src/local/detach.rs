//! Starting the platform in the background, and learning from it when it is ready.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::home::Home;

/// How long a platform may take to be ready.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// What a platform says of itself once it is ready: one line of JSON on standard output.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ready {
    /// Process of the platform.
    pub pid: u32,
    /// Address of the lifecycle API.
    pub domain: String,
    /// Its key.
    pub api_key: String,
    /// Address of the Kubernetes API.
    pub kubernetes: String,
    /// Milliseconds from start to ready.
    pub took_ms: f64,
}

/// Starts `osb up` with these arguments as a process of its own session, and waits until it is ready.
pub fn start(home: &Home, arguments: &[String]) -> Result<Ready> {
    home.create()?;
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(home.log())
        .with_context(|| format!("cannot open {}", home.log().display()))?;
    let before = log.metadata()?.len();
    let mut child = Command::new(std::env::current_exe().context("cannot find this program's own file")?)
        .arg("up")
        .args(arguments)
        .arg("--report-ready")
        .env(super::home::HOME_VARIABLE, home.root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        // A signal to the terminal's foreground group must not reach the platform.
        .process_group(0)
        .spawn()
        .context("cannot start the platform's process")?;
    let Some(stdout) = child.stdout.take() else { bail!("the platform's process has no output") };
    let (say, hear) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = BufReader::new(stdout).read_line(&mut line);
        let _ = say.send(line);
    });
    match hear.recv_timeout(READY_LIMIT) {
        Ok(line) if !line.is_empty() => {
            serde_json::from_str(&line).context("the platform said something else than ready")
        }
        Ok(_) => {
            let status = child.wait().context("cannot wait for the platform's process")?;
            let log = std::fs::read(home.log()).unwrap_or_default();
            let said = String::from_utf8_lossy(log.get(before as usize..).unwrap_or_default()).into_owned();
            let reason = said.lines().rev().find(|l| l.starts_with("error: ")).map(|l| l.trim_start_matches("error: "));
            match reason {
                Some(reason) => bail!("{reason}"),
                None => bail!("the platform ended with {status}; its log is {}", home.log().display()),
            }
        }
        Err(_) => {
            let _ = child.kill();
            let _ = child.wait();
            bail!("the platform was not ready within {READY_LIMIT:?}; its log is {}", home.log().display())
        }
    }
}
