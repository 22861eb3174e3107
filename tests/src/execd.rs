//! An execd of the test's own, without a platform around it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// How long it may take to listen.
const START: Duration = Duration::from_secs(30);

/// A running execd. Dropping it ends it and removes its directory.
pub struct Execd {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its working directory, with its state in it.
    pub dir: tempfile::TempDir,
}

impl Drop for Execd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Execd {
    /// Starts one that belongs to nobody, and waits until it listens.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or does not listen in time.
    pub fn start(binary: &Path) -> Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let dir = tempfile::tempdir()?;
        let mut command = Command::new(binary);
        command.arg(format!("--port={}", address.port())).current_dir(dir.path());
        command.stdin(Stdio::null()).stderr(Stdio::null());
        for name in ["OPENSANDBOX_DAEMON_KEY", "OPENSANDBOX_POD_UID", "EXECD_ACCESS_TOKEN"] {
            command.env_remove(name);
        }
        command.env("OPENSANDBOX_STATE_DIR", dir.path().join("state")).env("EXECD_ENVS", dir.path().join("envs"));
        let child = command.spawn().with_context(|| format!("cannot start {}", binary.display()))?;
        let this = Self { child, address, dir };
        let until = Instant::now() + START;
        while TcpStream::connect(address).is_err() {
            ensure!(Instant::now() < until, "{} does not listen within {START:?}", binary.display());
            std::thread::yield_now();
        }
        Ok(this)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}
