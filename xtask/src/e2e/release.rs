//! The platform on a cluster, by helm, as a stranger would install it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::kubectl::Kubectl;
use super::tool::wait;
use crate::cargo;
use crate::progress::Step;
use crate::tool::said;

/// Name of the release.
pub const NAME: &str = "opensandbox";
/// Namespace of the platform.
pub const NAMESPACE: &str = "opensandbox-system";
/// Label of the namespace that says: this installation is the suite's, and may be upgraded and removed.
const MARK: &str = "opensandbox.io/e2e";
/// Kinds of ours.
const KINDS: [&str; 3] = ["batchsandboxes", "pools", "sandboxsnapshots"];
/// API group of our kinds.
const GROUP: &str = "sandbox.opensandbox.io";

/// An installation that is the suite's own.
pub struct Release<'a> {
    kubectl: &'a Kubectl,
    /// The chart.
    pub chart: PathBuf,
    /// All values in one file.
    pub values: PathBuf,
}

impl<'a> Release<'a> {
    /// The release with the example's pool, and more values.
    pub fn new(kubectl: &'a Kubectl, work: &Path, more: &[PathBuf]) -> Result<Self> {
        let chart = cargo::root().join("charts/opensandbox");
        let seed = cargo::root().join("examples/pool-agent-production.yaml");
        let seed = std::fs::read_to_string(&seed).with_context(|| format!("cannot read {}", seed.display()))?;
        let mut values = with_pool(&seed);
        for path in more {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            values.push_str(&text);
            values.push('\n');
        }
        let file = work.join("values.yaml");
        std::fs::write(&file, values).context("cannot write the values")?;
        Ok(Self { kubectl, chart, values: file })
    }

    /// Installs, or upgrades what an earlier run has kept.
    pub fn install(&self) -> Result<()> {
        self.claim()?;
        let step = Step::new("helm install");
        let mut helm = self.kubectl.helm();
        helm.args(["upgrade", "--install", NAME]).arg(&self.chart).args(["--namespace", NAMESPACE]).arg("--values");
        helm.arg(&self.values).args(["--wait", "--timeout", "5m"]);
        let done = said(&mut helm, "").map(drop);
        step.done();
        done
    }

    /// Makes the namespace with the mark, and refuses a cluster that has a platform of somebody else's.
    fn claim(&self) -> Result<()> {
        let crds = self.kubectl.said(&["get", "crd", "-o", "name"], "")?;
        let crds = crds.lines().any(|name| name.ends_with(&format!(".{GROUP}")));
        let marked = self.kubectl.said(&["get", "namespace", "-l", MARK, "-o", "name"], "")?;
        ensure!(
            !crds || marked.contains(NAMESPACE),
            "the cluster has OpenSandbox's kinds already, and this suite did not bring them: it would upgrade and \
             remove them with every sandbox. Use another cluster"
        );
        let namespace = serde_json::json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": {MARK: "true"}},
        });
        self.kubectl.said(&["apply", "-f", "-"], &namespace.to_string()).map(drop)
    }

    /// Removes sandboxes, pools, the release, the kinds and the namespace.
    pub fn uninstall(&self) -> Result<()> {
        let step = Step::new("uninstalling");
        let done = self.remove();
        step.done();
        done
    }

    fn remove(&self) -> Result<()> {
        let crds = self.kubectl.said(&["get", "crd", "-o", "name"], "")?;
        let ours: Vec<String> =
            KINDS.iter().map(|kind| format!("{kind}.{GROUP}")).filter(|name| crds.contains(name)).collect();
        // While the controller still runs, it gives every pod back.
        for kind in &ours {
            let delete = ["delete", kind, "--all", "--all-namespaces", "--timeout=180s"];
            self.kubectl.said(&delete, "").with_context(|| format!("cannot delete all {kind}"))?;
        }
        let mut helm = self.kubectl.helm();
        helm.args(["uninstall", NAME, "--namespace", NAMESPACE, "--ignore-not-found", "--wait", "--timeout", "5m"]);
        said(&mut helm, "")?;
        // What values of the run kept beside kept sandboxes.
        let kept =
            ["delete", "networkpolicies", "--all-namespaces", "--selector", "app.kubernetes.io/part-of=opensandbox"];
        self.kubectl.said(&kept, "")?;
        for kind in &ours {
            self.kubectl.said(&["delete", "crd", kind, "--ignore-not-found", "--timeout=120s"], "")?;
        }
        self.kubectl.said(&["delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=180s"], "")?;
        wait("the namespace is gone", Duration::from_secs(60), || {
            let namespaces = self.kubectl.said(&["get", "namespace", "-o", "name"], "")?;
            Ok(!namespaces.lines().any(|name| name == format!("namespace/{NAMESPACE}")))
        })
    }
}

/// Values with one pool, as the manifest has it.
fn with_pool(manifest: &str) -> String {
    let mut values = "pools:\n".to_owned();
    let mut first = true;
    for line in manifest.lines() {
        if line.is_empty() || (first && line.starts_with('#')) {
            continue;
        }
        values.push_str(if first { "  - " } else { "    " });
        values.push_str(line);
        values.push('\n');
        first = false;
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_becomes_an_item_of_the_pools() {
        let values = with_pool("# about it\napiVersion: v1\nmetadata:\n  name: a\n  args:\n    - |\n      cp x\n");
        assert_eq!(
            values,
            "pools:\n  - apiVersion: v1\n    metadata:\n      name: a\n      args:\n        - |\n          cp x\n"
        );
    }
}
