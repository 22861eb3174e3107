//! A case: a pod, what is there before it, and the moments at which its status is compared.

use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Map, Value};

/// One pod of the table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// The file's name, and the pod's.
    #[serde(skip)]
    pub name: String,
    /// What the case shows.
    pub about: String,
    /// What the image must have beside what every machine has: `busybox`.
    #[serde(default)]
    pub needs: Vec<String>,
    /// Objects that are made before the pod.
    #[serde(default)]
    pub objects: Vec<Value>,
    /// The pod, without what every case says alike.
    pub pod: Value,
    /// When to look, in order.
    pub moments: Vec<Moment>,
}

/// A moment at which the status is compared.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moment {
    /// Name in the recording.
    pub name: String,
    /// What is done before.
    #[serde(default, rename = "do")]
    pub steps: Vec<Step>,
    /// What the status must hold.
    pub when: When,
    /// Seconds without a change that the moment needs beside `when`, for states that stay as they are.
    pub quiet: Option<u64>,
    /// Paths of the normalised status that differ from run to run, and are not compared.
    #[serde(default)]
    pub ignore: Vec<String>,
    /// Longest wait in seconds.
    pub seconds: Option<u64>,
    /// Containers whose log is compared as well.
    #[serde(default)]
    pub logs: Vec<String>,
    /// Containers whose previous run's log is compared as well.
    #[serde(default)]
    pub previous: Vec<String>,
    /// Commands whose output and exit code are compared as well.
    #[serde(default)]
    pub exec: Vec<Command>,
}

/// What a moment waits for.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum When {
    /// Paths of the normalised status and their values; `*` is any value.
    Holds(Map<String, Value>),
    /// `gone`: the object has been deleted.
    Word(String),
}

/// Something that is done to the pod or beside it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Step {
    /// Runs a command that must succeed.
    Exec(Command),
    /// Deletes the pod, with these options.
    Delete(Value),
    /// Changes the pod by a strategic merge patch.
    Patch(Value),
    /// Changes the pod by a JSON patch.
    PatchJson(Value),
    /// Changes the pod's status by a strategic merge patch.
    PatchStatus(Value),
    /// Changes the pod's resources by a strategic merge patch of the subresource `resize`.
    Resize(Value),
    /// Adds to the subresource `ephemeralcontainers` by a strategic merge patch.
    Debug(Value),
    /// Makes an object.
    Create(Value),
    /// Changes an object by a merge patch.
    Apply(Value),
}

/// A command in a container.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Container.
    pub container: String,
    /// Program and arguments.
    pub command: Vec<String>,
}

impl Case {
    /// The pod's object: the case's, with the image and what keeps a cluster's own additions out.
    pub fn object(&self) -> Value {
        let mut pod = self.pod.clone();
        pod["apiVersion"] = "v1".into();
        pod["kind"] = "Pod".into();
        pod["metadata"]["name"] = self.name.clone().into();
        let spec = &mut pod["spec"];
        spec["automountServiceAccountToken"] = false.into();
        for list in ["initContainers", "containers"] {
            for container in spec[list].as_array_mut().into_iter().flatten() {
                if container.get("image").is_none() {
                    container["image"] = "busybox:latest".into();
                }
                if container.get("imagePullPolicy").is_none() {
                    container["imagePullPolicy"] = "IfNotPresent".into();
                }
            }
        }
        if spec["initContainers"].is_null()
            && let Some(spec) = spec.as_object_mut()
        {
            spec.remove("initContainers");
        }
        pod
    }
}

/// Every case of a folder whose name holds one of `wanted`, or all.
pub fn cases(folder: &Path, wanted: &[String]) -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let Some(name) = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()) else { continue };
        if !wanted.is_empty() && !wanted.iter().any(|w| name.contains(w.as_str())) {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        let mut case: Case = serde_saphyr::from_str(&text).with_context(|| path.display().to_string())?;
        case.name = name;
        cases.push(case);
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(cases)
}
