//! Where kubeconform finds the schemas of kinds: at named places, or from a cluster.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::tool::said;

/// Locations for `-schema-location`, and the directory that goes with them.
pub struct Locations(pub Vec<String>, #[expect(dead_code, reason = "removed when dropped")] Option<Directory>);

/// Takes locations as they are, but `cluster` for the API server of the current kubeconfig.
pub fn resolve(named: &[String]) -> Result<Locations> {
    let mut locations = Vec::new();
    let mut directory = None;
    for name in named {
        if name == "cluster" {
            let made = Directory::new()?;
            from_cluster(&made).context("cannot take the schemas from the cluster")?;
            locations.push(format!(
                "{}/{{{{.ResourceKind}}}}-{{{{.Group}}}}-{{{{.ResourceAPIVersion}}}}.json",
                made.0.display()
            ));
            directory = Some(made);
        } else {
            locations.push(name.clone());
        }
    }
    Ok(Locations(locations, directory))
}

/// A temporary directory.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("opensandbox-schemas-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn from_cluster(directory: &Directory) -> Result<()> {
    let document = said(Command::new("kubectl").args(["get", "--raw", "/openapi/v2"]), "")?;
    let document: Value = serde_json::from_str(&document).context("the OpenAPI document is malformed")?;
    let definitions = document.get("definitions").and_then(Value::as_object).context("it defines nothing")?;
    for (name, schema) in files(definitions) {
        let path = directory.0.join(name);
        std::fs::write(&path, schema.to_string()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// One file a kind, which refers to one file with all definitions.
fn files(definitions: &Map<String, Value>) -> BTreeMap<String, Value> {
    let mut files = BTreeMap::new();
    for (name, definition) in definitions {
        let Some([kind]) =
            definition.get("x-kubernetes-group-version-kind").and_then(Value::as_array).map(Vec::as_slice)
        else {
            continue; // Options of calls belong to every group.
        };
        let part = |key: &str| kind.get(key).and_then(Value::as_str).unwrap_or_default();
        let group = if part("group").is_empty() { part("version") } else { part("group") };
        let file = format!("{}-{group}-{}.json", part("kind").to_lowercase(), part("version"));
        files.insert(file, json!({"$ref": format!("_definitions.json#/definitions/{name}")}));
    }
    let strict = definitions.iter().map(|(name, definition)| (name.clone(), strict(name, definition))).collect();
    files.insert("_definitions.json".to_owned(), json!({"definitions": Value::Object(strict)}));
    files
}

/// What OpenAPI leaves open is closed: unknown fields are errors, null is what is left out, and the
/// two types with two spellings have both.
fn strict(name: &str, definition: &Value) -> Value {
    if name.ends_with(".IntOrString") {
        return json!({"type": ["string", "integer", "null"]});
    }
    if name.ends_with(".Quantity") {
        return json!({"type": ["string", "number", "null"]});
    }
    let mut definition = definition.clone();
    close(&mut definition);
    definition
}

fn close(schema: &mut Value) {
    let open = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    if let Value::Object(object) = schema {
        if object.contains_key("properties") && !object.contains_key("additionalProperties") && !open {
            object.insert("additionalProperties".to_owned(), Value::Bool(false));
        }
        if let Some(Value::Object(properties)) = object.get_mut("properties") {
            for property in properties.values_mut() {
                if let Some(kind @ Value::String(_)) = property.get_mut("type") {
                    *kind = json!([kind.clone(), "null"]);
                }
                close(property);
            }
        }
        for key in ["items", "additionalProperties"] {
            if let Some(inner) = object.get_mut(key) {
                close(inner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_get_files_and_unknown_fields_are_closed() {
        let document = json!({
            "io.k8s.api.core.v1.Pod": {
                "properties": {"metadata": {"type": "object", "properties": {"name": {"type": "string"}}}},
                "x-kubernetes-group-version-kind": [{"group": "", "kind": "Pod", "version": "v1"}],
            },
            "io.k8s.apimachinery.DeleteOptions": {
                "x-kubernetes-group-version-kind": [{"kind": "DeleteOptions"}, {"kind": "DeleteOptions"}],
            },
        });
        let files = files(document.as_object().unwrap());
        assert_eq!(files.keys().collect::<Vec<_>>(), ["_definitions.json", "pod-v1-v1.json"]);
        let pod = &files["_definitions.json"]["definitions"]["io.k8s.api.core.v1.Pod"];
        assert_eq!(pod["additionalProperties"], json!(false));
        assert_eq!(pod["properties"]["metadata"]["additionalProperties"], json!(false));
        assert_eq!(pod["properties"]["metadata"]["properties"]["name"]["type"], json!(["string", "null"]));
    }
}
