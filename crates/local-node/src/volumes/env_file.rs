//! Files of a volume that hold environment variables: `NAME='value'` a line, as `fileKeyRef` reads them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// Largest file that is read, as in Kubernetes.
const MAX_SIZE: u64 = 64 * 1024;

/// The variables of a file below `volume`; `None` when there is no such file. Links never lead out of the volume.
pub fn read(volume: &Path, path: &Path) -> io::Result<Option<BTreeMap<String, String>>> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = match openat2(File::open(volume)?, path, how) {
        Ok(file) => File::from(file),
        Err(nix::errno::Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let mut text = String::new();
    if file.take(MAX_SIZE + 1).read_to_string(&mut text)? as u64 > MAX_SIZE {
        return Err(io::Error::other(format!("the file is larger than {MAX_SIZE} bytes")));
    }
    parse(&text).map(Some).map_err(io::Error::other)
}

/// A value in single quotes may go over several lines; empty lines and those that begin with `#` say nothing.
fn parse(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut variables = BTreeMap::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            rest = after;
            continue;
        }
        let (name, value) = line.split_once('=').ok_or_else(|| format!("{line:?} is no assignment"))?;
        let name = name.trim();
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '\0') {
            return Err(format!("{name:?} is no name of a variable"));
        }
        match value.trim_start().strip_prefix('\'') {
            Some(quoted) => {
                let at = line.len() - quoted.len();
                let open = &rest[at..];
                let end = open.find('\'').ok_or_else(|| format!("the value of {name} has no end"))?;
                variables.insert(name.to_owned(), open[..end].to_owned());
                rest = open[end + 1..].split_once('\n').map_or("", |(_, after)| after);
            }
            None => {
                variables.insert(name.to_owned(), value.trim().to_owned());
                rest = after;
            }
        }
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_values_may_go_over_lines() {
        let found = parse("# words\nA='one'\n\nB='two\nlines' # more\nC=plain\n").unwrap();
        assert_eq!(found["A"], "one");
        assert_eq!(found["B"], "two\nlines");
        assert_eq!(found["C"], "plain");
        assert!(parse("A='open\n").is_err() && parse("words\n").is_err());
    }
}
