//! Writes the files that are made from the code: the CRDs, the OpenAPI document, and what describes the chart's values.
//! With `--check` it writes nothing and fails when one differs.

#[path = "generate/chart.rs"]
mod chart;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Parser;

#[derive(Parser)]
struct Arguments {
    /// Only compare.
    #[arg(long)]
    check: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the package lies in the workspace")?;
    let mut differing = Vec::new();
    for (path, text) in files(root)? {
        if std::fs::read_to_string(&path).ok().as_deref() == Some(text.as_str()) {
            continue;
        }
        let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        if arguments.check {
            differing.push(shown);
            continue;
        }
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::write(&path, text).with_context(|| format!("cannot write {shown}"))?;
        println!("wrote {shown}");
    }
    if !differing.is_empty() {
        bail!("not as the code makes them: {}; run `cargo xtask generate` and commit", differing.join(", "));
    }
    Ok(())
}

/// Every generated file with its content.
fn files(root: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut files = chart::files(root)?;
    let mut openapi = serde_json::to_string_pretty(&server::openapi::document())?;
    openapi.push('\n');
    files.push((root.join("docs/openapi.json"), openapi));
    Ok(files)
}
