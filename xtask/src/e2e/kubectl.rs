//! kubectl on one cluster, whatever the current context becomes meanwhile.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::tool::said;

/// kubectl and helm on a cluster.
pub struct Kubectl {
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// On the cluster that a kubeconfig's text describes.
    pub fn of_text(text: &str, path: &Path) -> Result<Self> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
        let mut file = file.with_context(|| format!("cannot write {}", path.display()))?;
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        Ok(Self { kubeconfig: path.to_owned() })
    }

    /// On the cluster of the current context.
    pub fn of_current(path: &Path) -> Result<Self> {
        let text = said(Command::new("kubectl").args(["config", "view", "--minify", "--flatten", "--raw"]), "")
            .context("no cluster: kubectl has no current context; set KUBECONFIG")?;
        Self::of_text(&text, path)
    }

    /// The file that describes the cluster.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// What kubectl prints.
    pub fn said(&self, arguments: &[&str], stdin: &str) -> Result<String> {
        said(Command::new("kubectl").env("KUBECONFIG", &self.kubeconfig).args(arguments), stdin)
    }

    /// helm on the cluster.
    pub fn helm(&self) -> Command {
        let mut command = Command::new("helm");
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }
}
