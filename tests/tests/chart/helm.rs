//! Running `helm template` and reading what it wrote.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// Rendered objects.
pub struct Rendered {
    objects: Vec<Value>,
}

/// The workspace's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The chart's directory.
pub fn chart() -> PathBuf {
    root().join("charts/opensandbox")
}

/// Whether there is a helm; says so when not.
pub fn missing() -> bool {
    let there = Command::new("helm").arg("version").output().is_ok_and(|output| output.status.success());
    if !there {
        println!("not run: helm is not in PATH (https://helm.sh/docs/intro/install/)");
    }
    !there
}

/// Renders with these values, YAML. The error is what helm says.
pub fn render(values: &str) -> Result<Rendered, String> {
    render_as(values, "1.33.0")
}

/// The same, for a cluster of this version.
pub fn render_as(values: &str, kubernetes: &str) -> Result<Rendered, String> {
    let mut helm = Command::new("helm")
        .args(["template", "opensandbox", "--namespace", "opensandbox-system", "--kube-version", kubernetes])
        .args(["--values", "-"])
        .arg(chart())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    helm.stdin.take().unwrap().write_all(values.as_bytes()).unwrap();
    let output = helm.wait_with_output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8(output.stderr).unwrap());
    }
    let text = String::from_utf8(output.stdout).unwrap();
    let mut objects = Vec::new();
    for document in text.split("\n---\n") {
        let value: Value = serde_saphyr::from_str(document).unwrap_or_else(|e| panic!("{e}\n{document}"));
        if !value.is_null() {
            objects.push(value);
        }
    }
    Ok(Rendered { objects })
}

/// What helm says of values it must refuse.
pub fn refusal(values: &str) -> String {
    match render(values) {
        Ok(_) => panic!("these values were taken:\n{values}"),
        Err(said) => said,
    }
}

impl Rendered {
    /// Every object.
    pub fn objects(&self) -> &[Value] {
        &self.objects
    }

    /// Objects of a kind.
    pub fn all<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    /// The object of this kind and name.
    pub fn one(&self, kind: &str, name: &str) -> &Value {
        let is = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
        let found: Vec<_> = self.objects.iter().filter(is).collect();
        assert_eq!(found.len(), 1, "{kind} {name}");
        found[0]
    }

    /// Whether there is one.
    pub fn has(&self, kind: &str, name: &str) -> bool {
        self.all(kind).any(|object| object["metadata"]["name"] == name)
    }

    /// The arguments of a Deployment's only container.
    pub fn arguments(&self, deployment: &str) -> Vec<String> {
        let container = &self.one("Deployment", deployment)["spec"]["template"]["spec"]["containers"][0];
        container["args"].as_array().unwrap().iter().map(|a| a.as_str().unwrap().to_owned()).collect()
    }
}
