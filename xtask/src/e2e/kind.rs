//! kind: finding a cluster, or making one with an audit log.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::kubectl::Kubectl;
use super::{audit, plain};
use crate::progress::Step;
use crate::tool::said;

/// A kind cluster.
pub struct Cluster {
    name: String,
    ours: bool,
}

impl Cluster {
    /// The cluster of a name; if there is none, one is made.
    pub fn find_or_make(name: &str, config: Option<&Path>, work: &Path) -> Result<Self> {
        plain(name)?;
        let clusters = said(Command::new("kind").args(["get", "clusters"]), "")
            .context("kind cannot list clusters; is a Docker engine running?")?;
        if clusters.lines().any(|line| line == name) {
            return Ok(Self { name: name.to_owned(), ours: false });
        }
        let config = match config {
            Some(path) => path.to_owned(),
            None => write_config(work)?,
        };
        let step = Step::new(&format!("making kind cluster {name}"));
        let mut kind = Command::new("kind");
        kind.args(["create", "cluster", "--name", name, "--wait", "180s", "--config"]).arg(config);
        // The user's own kubeconfig and its current context stay as they are.
        kind.arg("--kubeconfig").arg(work.join("kubeconfig"));
        let made = said(&mut kind, "");
        step.done();
        let cluster = Self { name: name.to_owned(), ours: true };
        match made {
            Ok(_) => Ok(cluster),
            Err(error) => {
                let _ = cluster.delete();
                Err(error)
            }
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it was made by this run.
    pub fn is_ours(&self) -> bool {
        self.ours
    }

    /// kubectl on it.
    pub fn kubectl(&self, path: &Path) -> Result<Kubectl> {
        let text = said(Command::new("kind").args(["get", "kubeconfig", "--name", &self.name]), "")?;
        Kubectl::of_text(&text, path)
    }

    /// Runs a shell line on the control plane's node, with what it reads.
    pub fn on_control_plane(&self, line: &str, stdin: &str) -> Result<String> {
        let node = format!("{}-control-plane", self.name);
        said(Command::new("docker").args(["exec", "--interactive", &node, "sh", "-c", line]), stdin)
    }

    /// Deletes it.
    pub fn delete(&self) -> Result<()> {
        let step = Step::new(&format!("deleting kind cluster {}", self.name));
        let done = said(Command::new("kind").args(["delete", "cluster", "--name", &self.name]), "").map(drop);
        step.done();
        done
    }
}

/// A control plane that writes an audit log, and two workers, so that one may be stopped.
fn write_config(work: &Path) -> Result<PathBuf> {
    let policy = work.join("audit-policy.yaml");
    std::fs::write(&policy, audit::POLICY).context("cannot write the audit policy")?;
    let config = work.join("kind.yaml");
    std::fs::write(&config, config_text(&policy)).context("cannot write the kind configuration")?;
    Ok(config)
}

fn config_text(policy: &Path) -> String {
    let flags: Vec<(&str, &str)> = audit::flags().collect();
    let list: String =
        flags.iter().map(|(name, value)| format!("      - name: {name}\n        value: \"{value}\"\n")).collect();
    let map: String = flags.iter().map(|(name, value)| format!("      {name}: \"{value}\"\n")).collect();
    // kubeadm's arguments were a map up to v1beta3, and are a list since; kind applies the patch of its own version.
    let patch = |version: &str, arguments: &str| {
        let text = format!(
            "kind: ClusterConfiguration\napiVersion: kubeadm.k8s.io/{version}\napiServer:\n  extraArgs:\n{arguments}  \
             extraVolumes:\n    - name: audit\n      hostPath: {directory}\n      mountPath: {directory}\n      \
             pathType: DirectoryOrCreate\n",
            arguments = arguments.replace("      ", "    "),
            directory = audit::DIRECTORY,
        );
        let indented: String = text.lines().map(|line| format!("      {line}\n")).collect();
        format!("    - |\n{indented}")
    };
    format!(
        "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes:\n  - role: control-plane\n    extraMounts:\n      \
         - hostPath: {policy}\n        containerPath: {file}\n        readOnly: true\n    kubeadmConfigPatches:\n{v3}{v4}  \
         - role: worker\n  - role: worker\n",
        policy = policy.display(),
        file = audit::policy_file(),
        v3 = patch("v1beta3", &map),
        v4 = patch("v1beta4", &list),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_turns_the_audit_log_on() {
        let text = config_text(Path::new("/tmp/policy.yaml"));
        for line in [
            "      - hostPath: /tmp/policy.yaml\n        containerPath: /var/log/opensandbox-audit/policy.yaml\n",
            "          - name: audit-log-path\n            value: \"/var/log/opensandbox-audit/audit.log\"\n",
            "          audit-log-path: \"/var/log/opensandbox-audit/audit.log\"\n",
            "      kind: ClusterConfiguration\n      apiVersion: kubeadm.k8s.io/v1beta4\n",
            "  - role: worker\n  - role: worker\n",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
    }
}
