//! Setting single values in a YAML file without touching its comments.

use anyhow::{Result, bail};

/// Replaces the scalar at a path of keys in block style, such as `["execd", "image", "digest"]`. It must be there,
/// on one line. The value is written as a quoted string.
pub fn set(text: &str, path: &[&str], value: &str) -> Result<String> {
    // The keys above the current line, each with its indentation.
    let mut above: Vec<(usize, &str)> = Vec::new();
    let mut lines: Vec<String> = Vec::new();
    let mut done = false;
    for line in text.lines() {
        let content = line.trim_start();
        let indent = line.len() - content.len();
        let key = content.split_once(':').map(|(key, _)| key).filter(|key| !key.starts_with(['#', '-']));
        let Some(key) = key else {
            lines.push(line.to_owned());
            continue;
        };
        above.retain(|(column, _)| *column < indent);
        above.push((indent, key));
        if !done && above.iter().map(|(_, key)| *key).eq(path.iter().copied()) {
            lines.push(format!("{}{key}: {}", &line[..indent], serde_json::to_string(value)?));
            done = true;
        } else {
            lines.push(line.to_owned());
        }
    }
    if !done {
        bail!("there is no {} to set", path.join("."));
    }
    lines.push(String::new());
    Ok(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: &str = "\
# -- digest: not this
digest: top
execd:
  image:
    # -- Digest
    digest: \"\"
server:
  image:
    digest: \"\"
";

    #[test]
    fn one_value_changes_and_nothing_else() {
        let changed = set(VALUES, &["server", "image", "digest"], "sha256:1").unwrap();
        let expected =
            VALUES.rsplit_once("digest: \"\"").map(|(head, tail)| format!("{head}digest: \"sha256:1\"{tail}"));
        assert_eq!(Some(changed), expected);
    }

    #[test]
    fn what_is_not_there_is_not_made() {
        assert!(set(VALUES, &["server", "digest"], "").is_err());
        assert!(set(VALUES, &["controller", "image", "digest"], "").is_err());
    }
}
