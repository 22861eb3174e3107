//! What tells of a failure, gathered into one directory: objects, events, logs.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::ground::tool::says;

/// Writes objects and events of the whole cluster, and the logs of all pods of some namespaces, into a directory.
///
/// What cannot be had is written down as such: a cluster that is broken is the one that has to be looked at.
pub fn gather(kubectl: impl Fn() -> Command, namespaces: &[&str], directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let ours = "pools.sandbox.opensandbox.io,batchsandboxes.sandbox.opensandbox.io";
    for (file, arguments) in [
        ("pods.txt", &["get", "pods", "--all-namespaces", "-o", "wide"][..]),
        ("nodes.txt", &["describe", "nodes"]),
        ("events.txt", &["get", "events", "--all-namespaces", "--sort-by=.metadata.creationTimestamp"]),
        ("sandboxes.txt", &["get", ours, "--all-namespaces", "-o", "wide"]),
        ("sandboxes.yaml", &["get", ours, "--all-namespaces", "-o", "yaml"]),
        ("workloads.yaml", &["get", "deployments,services,leases,jobs", "--all-namespaces", "-o", "yaml"]),
    ] {
        keep(kubectl().args(arguments).arg("--request-timeout=30s"), &directory.join(file))?;
    }
    for namespace in namespaces {
        keep(
            kubectl().args(["get", "pods", "-o", "yaml", "--request-timeout=30s", "-n", namespace]),
            &directory.join(format!("pods-{namespace}.yaml")),
        )?;
        let list = ["get", "pods", "-o", "name", "--request-timeout=30s", "-n", namespace];
        let Ok(names) = says(kubectl().args(list), "").and_then(|said| said.ok()) else { continue };
        // Enough to see a pool's habits; the platform's own pods are few.
        for name in names.lines().take(40) {
            let pod = name.trim_start_matches("pod/");
            for (previous, ending) in [("--previous=false", "log"), ("--previous=true", "previous.log")] {
                let logs = [
                    "logs",
                    pod,
                    "--all-containers",
                    "--prefix",
                    "--timestamps",
                    "--tail=20000",
                    previous,
                    "-n",
                    namespace,
                ];
                let said = says(kubectl().args(logs), "")?;
                if said.status.success() && !said.out.is_empty() {
                    std::fs::write(directory.join(format!("{namespace}.{pod}.{ending}")), said.out)?;
                }
            }
        }
    }
    Ok(())
}

fn keep(command: &mut Command, file: &Path) -> Result<()> {
    let said = says(command, "")?;
    std::fs::write(file, format!("{}{}", said.out, said.err))
        .with_context(|| format!("cannot write {}", file.display()))
}
