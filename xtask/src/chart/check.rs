//! `cargo xtask chart --check`: what others' tools say of the chart.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::schemas;
use crate::progress::Step;
use crate::tool::{has, said};
use crate::{cargo, generate};

/// Generated files, `helm lint --strict` and `kubeconform -strict`, with every file of example values.
/// A tool that is not installed is named, and its part left out.
pub fn run(chart: &Path, locations: &[String]) -> Result<()> {
    generate::run(&generate::Options::check())?;
    if !has("helm") {
        println!("not checked by helm: it is not installed (https://helm.sh/docs/intro/install/)");
        return Ok(());
    }
    let values = example_values(chart)?;
    for file in &values {
        let step = Step::new(&format!("helm lint --strict, {}", shown(file)));
        let mut lint = Command::new("helm");
        lint.args(["lint", "--strict", "--quiet"]).arg(chart).arg("--values").arg(file);
        said(&mut lint, "").with_context(|| format!("helm lint with {}", shown(file)))?;
        step.done();
    }
    println!("helm lint --strict: clean with {} files of values", values.len());
    if !has("kubeconform") {
        println!("not checked by kubeconform: it is not installed (https://github.com/yannh/kubeconform)");
        return Ok(());
    }
    let locations = schemas::resolve(locations)?;
    let mut summary = String::new();
    for file in &values {
        let step = Step::new(&format!("kubeconform -strict, {}", shown(file)));
        let mut template = Command::new("helm");
        template.args(["template", "opensandbox"]).arg(chart).args(["--namespace", "opensandbox-system", "--values"]);
        let manifests = said(template.arg(file), "").with_context(|| format!("helm template with {}", shown(file)))?;
        let mut kubeconform = Command::new("kubeconform");
        kubeconform.args(["-strict", "-summary", "-ignore-missing-schemas"]);
        for location in &locations.0 {
            kubeconform.args(["-schema-location", location]);
        }
        let checked = said(kubeconform.arg("-"), &manifests);
        step.done();
        summary = match checked {
            Err(error) if locations.0.is_empty() && error.to_string().contains("failed downloading schema") => {
                println!("not checked by kubeconform: its schemas cannot be downloaded here; --schemas names others");
                return Ok(());
            }
            checked => checked.with_context(|| format!("kubeconform with {}", shown(file)))?,
        };
    }
    println!("kubeconform -strict: clean; the last: {}", summary.trim());
    Ok(())
}

fn example_values(chart: &Path) -> Result<Vec<PathBuf>> {
    let folder = chart.join("ci");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.to_string_lossy().ends_with("-values.yaml"))
        .collect();
    files.sort();
    ensure!(!files.is_empty(), "there are no example values in {}", folder.display());
    Ok(files)
}

fn shown(path: &Path) -> String {
    path.strip_prefix(cargo::root()).unwrap_or(path).display().to_string()
}
