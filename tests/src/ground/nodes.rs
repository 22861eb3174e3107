//! The nodes of a kind cluster, which are containers of a docker engine.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::tool::{Said, says};

/// Docker's view of a kind cluster.
#[derive(Debug, Clone)]
pub struct Nodes {
    cluster: String,
    hook: Option<String>,
}

impl Nodes {
    /// The nodes of a cluster. `hook` is a command that runs after a node was started again.
    pub fn new(cluster: impl Into<String>, hook: Option<String>) -> Self {
        Self { cluster: cluster.into(), hook }
    }

    /// Names of the nodes of a role: `control-plane` or `worker`.
    pub fn of_role(&self, role: &str) -> Result<Vec<String>> {
        let cluster = format!("label=io.x-k8s.kind.cluster={}", self.cluster);
        let role = format!("label=io.x-k8s.kind.role={role}");
        let names =
            docker(&["ps", "--all", "--filter", &cluster, "--filter", &role, "--format", "{{.Names}}"])?.ok()?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// The first control plane.
    pub fn control_plane(&self) -> Result<String> {
        self.of_role("control-plane")?.into_iter().next().context("the kind cluster has no control plane")
    }

    /// Runs a shell line on a node and gives what it printed.
    pub fn shell(&self, node: &str, line: &str) -> Result<String> {
        docker(&["exec", node, "sh", "-c", line])?.ok()
    }

    /// Kills the process of a container with a signal that it cannot catch. `query` are arguments of `crictl ps`.
    pub fn kill_container(&self, node: &str, query: &str) -> Result<()> {
        let line = format!(
            "id=$(crictl ps --quiet {query} | head -n 1) && test -n \"$id\" && \
             kill -9 $(crictl inspect --output go-template --template '{{{{.info.pid}}}}' \"$id\")"
        );
        self.shell(node, &line).map(drop)
    }

    /// Stops a node as a power cut would, but for the second that docker gives it.
    pub fn stop(&self, node: &str) -> Result<()> {
        docker(&["stop", "--time", "1", node])?.ok().map(drop)
    }

    /// Starts a stopped node.
    pub fn start(&self, node: &str) -> Result<()> {
        docker(&["start", node])?.ok()?;
        if let Some(hook) = &self.hook {
            let said = says(Command::new("sh").args(["-c", hook]).env("NODE", node).env("CLUSTER", &self.cluster), "")?;
            ensure!(said.status.success(), "the hook after a node's start failed: {}{}", said.out, said.err);
        }
        Ok(())
    }

    /// Processes on all nodes.
    pub fn processes(&self) -> Result<usize> {
        let mut count = 0;
        for node in self.of_role("worker")?.iter().chain(&self.of_role("control-plane")?) {
            let said = self.shell(node, "ls -d /proc/[0-9]* | wc -l")?;
            count += said.trim().parse::<usize>().with_context(|| format!("{node} counts {said:?}"))?;
        }
        Ok(count)
    }
}

fn docker(arguments: &[&str]) -> Result<Said> {
    says(Command::new("docker").args(arguments), "")
}
