//! The tools that a cluster needs, and where a stranger gets them.

use anyhow::{Context as _, Result, bail, ensure};

use crate::tool::has;

/// Fails with the way to get them where tools are missing, before anything is built.
pub fn need(tools: &[&str]) -> Result<()> {
    let missing: Vec<String> = tools.iter().filter(|tool| !has(tool)).map(|tool| advice(tool)).collect();
    ensure!(
        missing.is_empty(),
        "this needs tools that are not on the path:\n{}\nWithout a cluster, `cargo xtask e2e --on embedded` runs the \
         same cases on this machine.",
        missing.join("\n")
    );
    Ok(())
}

fn advice(tool: &str) -> String {
    let from = match tool {
        "kind" => {
            "https://kind.sigs.k8s.io/docs/user/quick-start/ (`go install sigs.k8s.io/kind@latest`, or a release's binary)"
        }
        "helm" => "https://helm.sh/docs/intro/install/ (version 3.17 or newer)",
        "kubectl" => "https://kubernetes.io/docs/tasks/tools/",
        "docker" => "https://docs.docker.com/engine/install/",
        _ => "your distribution",
    };
    format!("  {tool}: {from}")
}

/// Asks again until something is so, or the deadline passes.
pub fn wait(what: &str, limit: std::time::Duration, mut so: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = std::time::Instant::now();
    let mut last = None;
    while begun.elapsed() < limit {
        match so() {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => last = Some(error),
        }
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    match last {
        Some(error) => Err(error).with_context(|| format!("{what}: not within {limit:?}")),
        None => bail!("{what}: not within {limit:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_told_with_the_way_to_get_it() {
        let error = need(&["no-such-tool-here", "sh"]).unwrap_err().to_string();
        assert!(error.contains("no-such-tool-here: ") && error.contains("--on embedded"), "{error}");
        assert!(advice("kind").contains("https://kind.sigs.k8s.io"));
    }
}
