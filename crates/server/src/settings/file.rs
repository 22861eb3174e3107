//! The configuration file: its keys are those of the table; what is not in it is named with the nearest that is.

use std::path::{Path, PathBuf};

use super::table::{FOREIGN, SETTINGS};

/// A name within this similarity is a slip of the pen.
const NEAR: f64 = 0.6;

/// The file, while its values are being taken out of it.
#[derive(Debug, Default)]
pub struct File {
    /// Where it is.
    pub path: PathBuf,
    /// What is said of parts that are understood and mean nothing here.
    pub notices: Vec<String>,
    content: toml::Table,
}

/// Which file, and whether it must be there.
pub fn find(flag: Option<&String>, environment: &impl Fn(&str) -> Option<String>) -> Option<(PathBuf, bool)> {
    let given = |name| environment(name).filter(|value| !value.is_empty());
    let named = flag.cloned().or_else(|| given("OPENSANDBOX_SERVER_CONFIG")).or_else(|| given("SANDBOX_CONFIG_PATH"));
    match named {
        Some(path) => Some((PathBuf::from(path), true)),
        None => given("HOME").map(|home| (Path::new(&home).join(".sandbox.toml"), false)),
    }
}

/// Reads it. One that need not be there may be missing.
pub fn read(path: &Path, must: bool, problems: &mut Vec<String>) -> File {
    let mut file = File { path: path.to_owned(), ..File::default() };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must => return file,
        Err(error) => {
            problems.push(format!("{}: the configuration file can't be read: {error}", path.display()));
            return file;
        }
    };
    match text.parse::<toml::Table>() {
        Ok(content) => file.content = content,
        Err(error) => {
            problems.push(format!("{}: is no TOML: {}", path.display(), error.to_string().trim_end()));
        }
    }
    for (section, why) in FOREIGN {
        if file.content.remove(*section).is_some() {
            file.notices.push(format!("[{section}] in {} has no effect: {why}", path.display()));
        }
    }
    file
}

impl File {
    /// Takes the value of a key such as `server.port` out.
    pub fn take(&mut self, key: &str) -> Option<toml::Value> {
        let (parents, last) = key.rsplit_once('.')?;
        let mut table = &mut self.content;
        for part in parents.split('.') {
            table = table.get_mut(part)?.as_table_mut()?;
        }
        table.remove(last)
    }

    /// What nobody took is unknown.
    pub fn leftovers(&self, problems: &mut Vec<String>) {
        self.walk("", &self.content, problems);
    }

    fn walk(&self, prefix: &str, table: &toml::Table, problems: &mut Vec<String>) {
        for (name, value) in table {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            let is_section = SETTINGS.iter().any(|setting| setting.key.starts_with(&format!("{key}.")));
            match value {
                toml::Value::Table(inner) if is_section => self.walk(&key, inner, problems),
                _ if is_section => {
                    problems.push(format!("{key} in {}: is no table; write [{key}]", self.path.display()));
                }
                _ => problems.push(format!("{key} in {}: is unknown{}", self.path.display(), nearest(&key))),
            }
        }
    }
}

/// The nearest known key or section, as a sentence's end.
fn nearest(key: &str) -> String {
    let sections = SETTINGS.iter().filter_map(|s| s.key.rsplit_once('.')).map(|(section, _)| section);
    let known = SETTINGS.iter().map(|s| s.key).chain(sections).chain(FOREIGN.iter().map(|(name, _)| *name));
    let best = known.map(|known| (strsim::jaro_winkler(key, known), known)).max_by(|a, b| a.0.total_cmp(&b.0));
    match best {
        Some((score, known)) if score > NEAR => format!("; did you mean {known}?"),
        _ => String::new(),
    }
}
