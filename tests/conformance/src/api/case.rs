//! Cases as data: a file is a suite, its requests are sent in order to one namespace.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;

/// One file of requests.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// The file's stem.
    #[serde(skip)]
    pub name: String,
    /// The requests are repeated for each of these sets of `$VARIABLES`.
    #[serde(default)]
    pub each: Vec<BTreeMap<String, String>>,
    /// The requests.
    pub cases: Vec<Case>,
}

/// One request, or a watch with what happens while it is open.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What is tried; unique in its suite.
    pub name: String,
    /// HTTP method.
    #[serde(default = "get")]
    pub method: String,
    /// Path and query; `$NS` is the suite's namespace, other `$NAMES` are what earlier cases saved.
    pub path: String,
    /// `Content-Type`.
    #[serde(default = "json", rename = "type")]
    pub media: String,
    /// `Accept`.
    #[serde(default = "json")]
    pub accept: String,
    /// More headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Body as JSON.
    #[serde(default)]
    pub body: Option<Value>,
    /// Body as text, where it is to be no JSON or YAML.
    #[serde(default)]
    pub raw: Option<String>,
    /// A body of this many bytes, inside the data of a ConfigMap.
    #[serde(default)]
    pub bulk: Option<usize>,
    /// `$NAME` to JSON pointer into the answer's body.
    #[serde(default)]
    pub save: BTreeMap<String, String>,
    /// Repeat until the answer has this code: for what happens by itself.
    #[serde(default)]
    pub until: Option<u16>,
    /// Repeat until the body has this text at this pointer.
    #[serde(default)]
    pub until_body: Option<(String, String)>,
    /// A watch: read this many events, or until it ends.
    #[serde(default)]
    pub events: Option<usize>,
    /// Sent once the watch is open; each must succeed.
    #[serde(default)]
    pub during: Vec<Case>,
    /// Only these parts of the body (JSON pointers) are kept, for answers that are long and mostly the cluster's own.
    #[serde(default)]
    pub only: Vec<String>,
}

fn get() -> String {
    "GET".into()
}

fn json() -> String {
    "application/json".into()
}

/// All suites, sorted by name; `filter` narrows them to names that contain it.
pub fn suites(folder: &Path, filter: &str) -> anyhow::Result<Vec<Suite>> {
    let mut list = Vec::new();
    for entry in std::fs::read_dir(folder.join("cases"))? {
        let path = entry?.path();
        let Some(name) = path.file_stem().map(|s| s.to_string_lossy().into_owned()) else { continue };
        if path.extension().is_none_or(|e| e != "yaml") || !name.contains(filter) {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        let mut suite: Suite = read(&text).with_context(|| format!("{}", path.display()))?;
        suite.name = name;
        list.push(suite);
    }
    list.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(list)
}

/// Reads YAML in which `y` and `n` are texts.
pub(super) fn read<T: serde::de::DeserializeOwned>(text: &str) -> anyhow::Result<T> {
    Ok(serde_saphyr::from_str_with_options(text, serde_saphyr::options! { strict_booleans: true })?)
}
