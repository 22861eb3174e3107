//! What is made for the chart: the CRDs it carries, and from the comments of values.yaml its schema, README and page.
//!
//! In values.yaml, `# -- text` describes the value below it, and `# @schema {...}` adds to what its default says of its
//! type. A described value is one value, however deep; every other must be described further down.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

const CHART: &str = "charts/opensandbox";
/// Where the CRDs of a first install belong: Helm can't put a release's name into them.
const RELEASE: (&str, &str) = ("opensandbox", "opensandbox-system");
/// Helm-docs: where its templates put the table.
const TABLE: &str = "{{ template \"chart.valuesTable\" . }}";

/// The chart's generated files with their content.
pub fn files(root: &Path) -> Result<Vec<(PathBuf, String)>> {
    let chart = root.join(CHART);
    let mut files = crds(&chart)?;
    let text = std::fs::read_to_string(chart.join("values.yaml")).context("cannot read values.yaml")?;
    let values: Value = serde_saphyr::from_str(&text).context("values.yaml")?;
    let entries = entries(&text)?;
    let defaults = serde_saphyr::to_string(&values).context("cannot write the defaults")?;
    files.push((chart.join("files/defaults.yaml"), format!("{HEAD}values.yaml; do not edit.\n{defaults}")));
    let mut schema = schema(&entries, &values, &mut Vec::new())?;
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["title"] = json!("Values of the OpenSandbox chart");
    files.push((chart.join("values.schema.json"), format!("{}\n", serde_json::to_string_pretty(&schema)?)));
    let readme = std::fs::read_to_string(chart.join("README.md.gotmpl")).context("cannot read README.md.gotmpl")?;
    if !readme.contains(TABLE) {
        bail!("README.md.gotmpl has no {TABLE}");
    }
    files.push((chart.join("README.md"), readme.replace(TABLE, table(&entries, &values, None).trim_end())));
    files.push((root.join("docs/values.md"), page(&entries, &values)));
    Ok(files)
}

const HEAD: &str = "# Written by `cargo xtask generate` from ";

/// The CRDs, marked so that Helm takes them for those of the release with the documented name, and so that the chart can
/// tell whether a cluster has the same ones.
fn crds(chart: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut files = Vec::new();
    for mut crd in api_types::crd::all() {
        let name = format!("{}.yaml", crd.spec.names.plural);
        let revision = format!("{:016x}", fnv1a(serde_json::to_string(&crd.spec)?.as_bytes()));
        crd.metadata.labels.get_or_insert_default().extend([
            ("app.kubernetes.io/managed-by".to_owned(), "Helm".to_owned()),
            ("app.kubernetes.io/part-of".to_owned(), "opensandbox".to_owned()),
        ]);
        crd.metadata.annotations.get_or_insert_default().extend([
            ("meta.helm.sh/release-name".to_owned(), RELEASE.0.to_owned()),
            ("meta.helm.sh/release-namespace".to_owned(), RELEASE.1.to_owned()),
            ("opensandbox.io/crd-revision".to_owned(), revision),
        ]);
        let yaml = serde_saphyr::to_string(&crd).with_context(|| format!("cannot write {name} as YAML"))?;
        files.push((chart.join("crds").join(name), format!("{HEAD}crates/api-types; do not edit.\n{yaml}")));
    }
    Ok(files)
}

/// FNV-1a, 64 bits: the same everywhere and for ever, which a hash of the standard library is not.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// What comments say of one value.
struct Entry {
    path: Vec<String>,
    description: Option<String>,
    schema: Map<String, Value>,
}

/// Every commented value, in the file's order.
fn entries(text: &str) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut path: Vec<(usize, String)> = Vec::new();
    let (mut description, mut schema) = (None::<String>, Map::new());
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        if let Some(comment) = trimmed.strip_prefix('#') {
            let comment = comment.trim();
            if let Some(first) = comment.strip_prefix("-- ") {
                description = Some(first.to_owned());
            } else if let Some(json) = comment.strip_prefix("@schema ") {
                schema = serde_json::from_str(json).with_context(|| format!("values.yaml:{}: @schema", index + 1))?;
            } else if let Some(description) = &mut description {
                description.push(' ');
                description.push_str(comment);
            }
            continue;
        }
        if let Some((key, _)) = trimmed.split_once(':').filter(|(key, _)| is_key(key)) {
            path.retain(|(depth, _)| *depth < indent);
            path.push((indent, key.to_owned()));
            if description.is_some() || !schema.is_empty() {
                let path = path.iter().map(|(_, key)| key.clone()).collect();
                entries.push(Entry { path, description: description.take(), schema: std::mem::take(&mut schema) });
            }
        }
        (description, schema) = (None, Map::new());
    }
    Ok(entries)
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The schema of a value and of those below it.
fn schema(entries: &[Entry], value: &Value, path: &mut Vec<String>) -> Result<Value> {
    let entry = entries.iter().find(|entry| entry.path == *path);
    let description = entry.and_then(|entry| entry.description.as_ref());
    let mut schema = json!({"type": kind(value)});
    if let Some(description) = description {
        schema["description"] = json!(description);
    } else if let Value::Object(members) = value {
        schema["additionalProperties"] = json!(false);
        schema["properties"] = json!({});
        for (key, member) in members {
            path.push(key.clone());
            schema["properties"][key] = self::schema(entries, member, path)?;
            path.pop();
        }
    } else {
        bail!("values.yaml: {} has no `# --` comment", path.join("."));
    }
    for (key, value) in entry.iter().flat_map(|entry| &entry.schema) {
        schema[key] = value.clone();
    }
    Ok(schema)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A table of the described values, of one section or of all.
fn table(entries: &[Entry], values: &Value, section: Option<&str>) -> String {
    let mut table = "| Value | Default | |\n|---|---|---|\n".to_owned();
    for entry in entries.iter().filter(|entry| section.is_none_or(|section| entry.path[0] == section)) {
        let Some(description) = &entry.description else { continue };
        let default = entry.path.iter().fold(values, |value, key| &value[key]);
        let default = serde_json::to_string(default).unwrap_or_default();
        // Writing to a String does not fail.
        let _ = writeln!(table, "| `{}` | `{}` | {} |", entry.path.join("."), cell(&default), cell(description));
    }
    table
}

/// A bar would end the cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// The page of the values, a heading a section.
fn page(entries: &[Entry], values: &Value) -> String {
    let mut page = "# Values of the chart\n\nWritten by `cargo xtask generate` from `charts/opensandbox/values.yaml`. \
        A value that is not listed here is refused by its name.\n"
        .to_owned();
    let mut sections: Vec<&str> = Vec::new();
    for entry in entries.iter().filter(|entry| entry.description.is_some()) {
        if !sections.contains(&entry.path[0].as_str()) {
            sections.push(&entry.path[0]);
        }
    }
    let (nested, plain): (Vec<&str>, Vec<&str>) =
        sections.iter().partition(|s| entries.iter().any(|e| e.path[0] == **s && e.path.len() > 1));
    let mut general = "| Value | Default | |\n|---|---|---|\n".to_owned();
    for section in plain {
        general.extend(table(entries, values, Some(section)).lines().skip(2).map(|line| format!("{line}\n")));
    }
    let _ = write!(page, "\n## General\n\n{general}");
    for section in nested {
        let _ = write!(page, "\n## {section}\n\n{}", table(entries, values, Some(section)));
    }
    page
}
