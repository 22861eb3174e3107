//! The API server's audit log in a kind cluster: who asked for what, to compare roles with what is used.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::kind::Cluster;
use super::kubectl::Kubectl;
use super::tool::wait;
use crate::progress::Step;

/// Directory of policy and log on the control plane's node.
pub const DIRECTORY: &str = "/var/log/opensandbox-audit";
const MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";

/// Every request of the platform's service accounts, without bodies.
pub const POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
  - level: Metadata
    userGroups: [\"system:serviceaccounts:opensandbox-system\"]
";

/// The policy's file on the node.
pub fn policy_file() -> String {
    format!("{DIRECTORY}/policy.yaml")
}

fn log_file() -> String {
    format!("{DIRECTORY}/audit.log")
}

/// Flags of the API server, without their dashes.
pub fn flags() -> impl Iterator<Item = (&'static str, &'static str)> {
    [
        ("audit-policy-file", "/var/log/opensandbox-audit/policy.yaml"),
        ("audit-log-path", "/var/log/opensandbox-audit/audit.log"),
        // A whole run's requests are some tens of MiB.
        ("audit-log-maxsize", "1024"),
    ]
    .into_iter()
}

/// The log's path on the node, if the API server writes one.
pub fn log(cluster: &Cluster) -> Result<Option<String>> {
    let manifest = cluster.on_control_plane(&format!("cat {MANIFEST}"), "")?;
    Ok(manifest.contains(&format!("--audit-log-path={}", log_file())).then(log_file))
}

/// Turns the log on, which restarts the API server.
pub fn enable(cluster: &Cluster, kubectl: &Kubectl) -> Result<()> {
    let manifest = cluster.on_control_plane(&format!("cat {MANIFEST}"), "")?;
    let Some(changed) = with_audit(&manifest)? else { return Ok(()) };
    let step = Step::new("turning the API server's audit log on");
    cluster.on_control_plane(&format!("mkdir -p {DIRECTORY} && cat > {}", policy_file()), POLICY)?;
    // The kubelet reads a manifest at once, so it must appear whole, and from the same file system.
    cluster.on_control_plane(&format!("cat > {MANIFEST}.new~ && mv {MANIFEST}.new~ {MANIFEST}"), &changed)?;
    let done = wait("the API server writes its audit log", Duration::from_secs(180), || {
        cluster.on_control_plane(&format!("test -e {}", log_file()), "")?;
        kubectl.said(&["get", "--raw", "/readyz"], "").map(|text| text.trim() == "ok")
    });
    step.done();
    done
}

/// The API server's manifest with the audit log, unless it has one.
fn with_audit(manifest: &str) -> Result<Option<String>> {
    if manifest.contains("--audit-log-path") {
        ensure!(
            manifest.contains(&log_file()),
            "the API server writes an audit log of somebody else's; its place is not ours to change"
        );
        return Ok(None);
    }
    let arguments: String = flags().map(|(name, value)| format!("    - --{name}={value}\n")).collect();
    let mount = format!("    - mountPath: {DIRECTORY}\n      name: audit\n");
    let volume = format!("  - hostPath:\n      path: {DIRECTORY}\n      type: DirectoryOrCreate\n    name: audit\n");
    let mut text = manifest.to_owned();
    for (line, more) in
        [("    - kube-apiserver\n", arguments), ("    volumeMounts:\n", mount), ("  volumes:\n", volume)]
    {
        let at = text.find(line).with_context(|| format!("the API server's manifest has no line {line:?}"))?;
        text.insert_str(at + line.len(), &more);
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "spec:\n  containers:\n  - command:\n    - kube-apiserver\n    - --secure-port=6443\n    \
                            volumeMounts:\n    - mountPath: /etc/ssl/certs\n      name: ca-certs\n  volumes:\n  \
                            - hostPath:\n      path: /etc/ssl/certs\n    name: ca-certs\n";

    #[test]
    fn a_manifest_gets_flags_mount_and_volume_once() {
        let changed = with_audit(MANIFEST).unwrap().unwrap();
        assert!(changed.contains("    - kube-apiserver\n    - --audit-policy-file="), "{changed}");
        assert!(changed.contains("    volumeMounts:\n    - mountPath: /var/log/opensandbox-audit\n"), "{changed}");
        assert!(changed.contains("  volumes:\n  - hostPath:\n      path: /var/log/opensandbox-audit\n"), "{changed}");
        assert!(with_audit(&changed).unwrap().is_none());
    }

    #[test]
    fn an_unknown_manifest_is_not_touched() {
        assert!(with_audit("spec: {}\n").is_err());
    }
}
