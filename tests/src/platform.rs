//! A platform of the test's own: the real `osb`, in a directory that goes with it.

#![expect(clippy::panic, reason = "a platform that leaves something behind fails its test")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};
use kube::Client;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use opensandbox::ConnectionConfig;

pub use crate::watch::{LIMIT, until};

/// What this machine lacks to run pods, if anything.
pub fn missing() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("root, to make containers");
    }
    let overlay = std::fs::read_to_string("/proc/filesystems").is_ok_and(|t| t.contains("overlay"));
    if !overlay {
        return Some("overlayfs in the kernel");
    }
    None
}

static BINARIES: OnceLock<Result<PathBuf, String>> = OnceLock::new();

/// Takes the platform's binaries from a directory instead of building them.
pub fn use_binaries(dir: &Path) {
    let _ = BINARIES.set(Ok(dir.to_owned()));
}

/// The directory of the platform's binaries: `$OPENSANDBOX_E2E_BINARIES`, or built as the tests are.
pub fn binaries() -> Result<&'static Path> {
    let built = BINARIES.get_or_init(|| match std::env::var_os("OPENSANDBOX_E2E_BINARIES") {
        Some(directory) => Ok(directory.into()),
        None => build().map_err(|e| format!("{e:#}")),
    });
    match built {
        Ok(path) => Ok(path),
        Err(error) => bail!("{error}"),
    }
}

/// The whole workspace is named: cargo unites the features of what it builds at once, and a choice of packages
/// would have most dependencies compiled once more.
fn build() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let status = programs::cargo(env!("CARGO"))
        .args(["build", "--quiet", "--workspace", "--bin", "osb", "--bin", "execd", "--bin", "task-executor"])
        .current_dir(root)
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "the platform does not build");
    // .../debug/deps/TEST -> .../debug
    let this = std::env::current_exe()?;
    let dir = this.parent().and_then(Path::parent).context("a test lies in target/PROFILE/deps")?;
    Ok(dir.to_owned())
}

/// A running platform. Dropping it ends every sandbox and removes its directory.
///
/// Pods share the machine's cgroups and addresses, so one runs at a time.
pub struct Platform {
    home: tempfile::TempDir,
    ready: Ready,
    arguments: Vec<String>,
    ended: bool,
}

struct Ready {
    pid: i32,
    domain: String,
    api_key: String,
}

impl Platform {
    /// Starts a platform on free ports. `host` stands in for every image that can't be had.
    pub fn start() -> Result<Self> {
        Self::start_with(&["--stand-in", "*=host"])
    }

    /// Starts a platform on free ports with further arguments of `osb up`.
    pub fn start_with(arguments: &[&str]) -> Result<Self> {
        let home = tempfile::Builder::new().prefix("osb-e2e-").tempdir()?;
        let mut all = vec!["--listen", "127.0.0.1:0", "--kube-listen", "127.0.0.1:0"];
        all.extend(arguments);
        let arguments: Vec<String> = all.into_iter().map(str::to_owned).collect();
        let ready = up(home.path(), &arguments)?;
        Ok(Self { home, ready, arguments, ended: false })
    }

    /// The platform's directory.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// `IP:PORT` of the lifecycle API.
    pub fn domain(&self) -> &str {
        &self.ready.domain
    }

    /// Key of the lifecycle API.
    pub fn api_key(&self) -> &str {
        &self.ready.api_key
    }

    /// Process of the platform.
    pub fn pid(&self) -> i32 {
        self.ready.pid
    }

    /// Kills the platform's process as a crash would. Pods live on.
    pub fn crash(&self) -> Result<()> {
        let pid = Pid::from_raw(self.ready.pid);
        kill(pid, Signal::SIGKILL).context("cannot kill the platform")?;
        // It is nobody's child here, and holds its lock until the kernel has taken it down.
        let begun = std::time::Instant::now();
        while kill(pid, None).is_ok() {
            ensure!(begun.elapsed() < LIMIT, "the killed platform is still there");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Ok(())
    }

    /// Starts the platform again on what is left.
    pub fn start_again(&mut self) -> Result<()> {
        self.ready = up(self.home.path(), &self.arguments)?;
        Ok(())
    }

    /// How the SDK reaches the platform.
    pub fn connection(&self) -> ConnectionConfig {
        ConnectionConfig::new(self.domain()).api_key(self.api_key())
    }

    /// How kubectl reaches its Kubernetes API.
    pub fn kubeconfig(&self) -> PathBuf {
        self.home.path().join("kubeconfig")
    }

    /// A client of its Kubernetes API, over the wire as kubectl has it.
    pub async fn client(&self) -> Result<Client> {
        client(&self.kubeconfig()).await
    }

    /// `osb` on this platform.
    pub fn osb(&self) -> Result<Command> {
        osb(self.home.path())
    }

    /// kubectl on this platform.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new("kubectl");
        // Its caches go with the platform.
        command.env("KUBECONFIG", self.kubeconfig()).env("HOME", self.home.path());
        command
    }
}

impl Platform {
    /// Ends every sandbox and removes the directory; an error if a process stays.
    pub fn end(mut self) -> Result<()> {
        self.down()
    }

    fn down(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        let out = osb(self.home.path())?.args(["down", "--purge"]).output().context("cannot start osb down")?;
        ensure!(out.status.success(), "osb down failed: {}", String::from_utf8_lossy(&out.stderr));
        let left = processes_naming(self.home.path());
        ensure!(left.is_empty(), "processes of the platform are left: {left:?}");
        Ok(())
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if let Err(error) = self.down() {
            if std::thread::panicking() {
                eprintln!("{error:#}");
            } else {
                panic!("{error:#}");
            }
        }
    }
}

/// Processes whose command line has a path.
fn processes_naming(path: &Path) -> Vec<String> {
    let path = path.display().to_string();
    let lines = std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(&path)).collect()
}

/// A client of the Kubernetes API that a kubeconfig names.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let config = kube::config::Kubeconfig::read_from(kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await?;
    Ok(Client::try_from(config)?)
}

fn osb(home: &Path) -> Result<Command> {
    let mut command = Command::new(binaries()?.join("osb"));
    command.env("OSB_HOME", home).env_remove("OPEN_SANDBOX_DOMAIN").env_remove("OPEN_SANDBOX_API_KEY");
    Ok(command)
}

fn up(home: &Path, arguments: &[String]) -> Result<Ready> {
    let output = osb(home)?.arg("up").arg("--detach").args(arguments).output().context("cannot start osb")?;
    ensure!(output.status.success(), "osb up failed: {}", String::from_utf8_lossy(&output.stderr));
    let status = osb(home)?.args(["status", "-o", "json"]).output()?;
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).context("osb status printed no JSON")?;
    let text =
        |name: &str| status[name].as_str().map(str::to_owned).with_context(|| format!("no {name} in osb status"));
    Ok(Ready {
        pid: status["pid"].as_i64().context("no pid in osb status")? as i32,
        domain: text("domain")?,
        api_key: text("apiKey")?,
    })
}
