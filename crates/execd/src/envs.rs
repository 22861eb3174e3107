//! The environment of what runs in the sandbox: the daemon's own without its secrets, then what the
//! claim brought, then the `EXECD_ENVS` file, then the request's.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use api_types::names::env as names;

/// Variables of the daemon's own that nothing in the sandbox inherits.
const PRIVATE: [&str; 4] = [names::DAEMON_KEY, names::POD_UID, names::EXECD_ACCESS_TOKEN, crate::config::STATE_DIR_ENV];

/// `PATH` where the container has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Largest `EXECD_ENVS` file that is read.
const FILE_CAP: u64 = 1 << 20;

/// A set of variables, by name.
pub type Env = BTreeMap<OsString, OsString>;

/// Why an environment was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// A name is empty.
    #[error("an environment variable has an empty name")]
    EmptyName,
    /// A name has a character that none may have.
    #[error("environment variable {0:?}: a name must not contain '=' or a zero byte")]
    BadName(String),
    /// A value has a zero byte.
    #[error("environment variable {0:?}: its value contains a zero byte")]
    BadValue(String),
}

/// Checks names and values as a process can have them.
///
/// # Errors
/// The first that can't be, by name.
pub fn validate(env: &BTreeMap<String, String>) -> Result<(), EnvError> {
    for (name, value) in env {
        if name.is_empty() {
            return Err(EnvError::EmptyName);
        }
        if name.contains(['=', '\0']) {
            return Err(EnvError::BadName(name.clone()));
        }
        if value.contains('\0') {
            return Err(EnvError::BadValue(name.clone()));
        }
    }
    Ok(())
}

/// The base: the daemon's environment as given, without what is private to it.
pub fn base(own: impl Iterator<Item = (OsString, OsString)>) -> Env {
    let mut env: Env = own.filter(|(name, _)| !PRIVATE.iter().any(|p| OsStr::new(p) == name)).collect();
    env.entry("PATH".into()).or_insert_with(|| DEFAULT_PATH.into());
    env
}

/// Adds variables over those there are.
pub fn overlay<'a>(env: &mut Env, more: impl IntoIterator<Item = (&'a String, &'a String)>) {
    env.extend(more.into_iter().map(|(k, v)| (k.into(), v.into())));
}

/// Adds the `EXECD_ENVS` file, read anew. A file that can't be read adds nothing.
pub fn overlay_file(env: &mut Env, path: &Path) {
    let text = std::fs::File::open(path).and_then(|file| {
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(file, FILE_CAP), &mut text)?;
        Ok(text)
    });
    match text {
        Ok(text) => {
            let base = env.clone();
            for (name, value) in parse_file(&text, &base) {
                env.insert(name, value);
            }
        }
        Err(error) => tracing::debug!(path = %path.display(), %error, "cannot read the file of EXECD_ENVS"),
    }
}

/// The `KEY=VALUE` lines of such a file. `'…'` is literal, `"…"` knows backslashes and variables, a
/// plain value knows variables; variables are those of `base`.
fn parse_file(text: &[u8], base: &Env) -> Vec<(OsString, OsString)> {
    let mut found = Vec::new();
    for line in text.split(|b| *b == b'\n') {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") || line.contains(&0) {
            continue;
        }
        let Some(at) = line.iter().position(|b| *b == b'=') else {
            tracing::warn!("a line of EXECD_ENVS has no '='; passed over");
            continue;
        };
        let (name, value) = (line.get(..at).unwrap_or_default().trim_ascii(), line.get(at + 1..).unwrap_or_default());
        if name.is_empty() {
            continue;
        }
        let value = match value {
            [b'\'', inner @ .., b'\''] => inner.to_vec(),
            [b'"', inner @ .., b'"'] => expand(inner, base, true),
            plain => expand(plain, base, false),
        };
        found.push((OsString::from_vec(name.to_vec()), OsString::from_vec(value)));
    }
    found
}

fn expand(text: &[u8], env: &Env, escapes: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'\\' if escapes => match rest.split_first() {
                Some((&next @ (b'"' | b'\\' | b'$' | b'`'), after)) => {
                    out.push(next);
                    rest = after;
                }
                _ => out.push(byte),
            },
            b'$' => match variable(rest) {
                Some((name, after)) => {
                    out.extend_from_slice(env.get(OsStr::from_bytes(name)).map(|v| v.as_bytes()).unwrap_or_default());
                    rest = after;
                }
                None => out.push(byte),
            },
            _ => out.push(byte),
        }
    }
    out
}

/// The name of a variable after a `$`, plain or in braces, and what follows it.
pub fn variable(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let name_length = |b: &[u8]| {
        let starts = b.first().is_some_and(|c| c.is_ascii_alphabetic() || *c == b'_');
        if starts { b.iter().take_while(|c| c.is_ascii_alphanumeric() || **c == b'_').count() } else { 0 }
    };
    let (body, closing) = match rest {
        [b'{', body @ ..] => (body, 1),
        body => (body, 0),
    };
    let length = name_length(body);
    let (name, after) = body.split_at_checked(length).filter(|_| length > 0)?;
    match (closing, after) {
        (0, after) => Some((name, after)),
        (_, [b'}', after @ ..]) => Some((name, after)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Env {
        pairs.iter().map(|(k, v)| (k.into(), v.into())).collect()
    }

    #[test]
    fn secrets_of_the_daemon_stay_with_it() {
        let own = env(&[
            ("OPENSANDBOX_DAEMON_KEY", "k"),
            ("EXECD_ACCESS_TOKEN", "t"),
            ("OPENSANDBOX_POD_UID", "u"),
            ("A", "b"),
        ]);
        let base = base(own.into_iter());
        assert_eq!(base, env(&[("A", "b"), ("PATH", DEFAULT_PATH)]));
    }

    #[test]
    fn names_are_checked() {
        let of = |k: &str, v: &str| validate(&BTreeMap::from([(k.to_owned(), v.to_owned())]));
        assert_eq!(of("A", "x=y"), Ok(()));
        assert_eq!(of("A=B", "x"), Err(EnvError::BadName("A=B".into())));
        assert_eq!(of("", "x"), Err(EnvError::EmptyName));
        assert_eq!(of("A", "x\0"), Err(EnvError::BadValue("A".into())));
    }

    #[test]
    fn the_file_is_read_line_by_line() {
        let base = env(&[("HOME", "/root"), ("P", "/bin")]);
        let text =
            b"# c\n\n A=1 \nB=$HOME/x:${P}\nC='$HOME'\nD=\"it's \\\"$P\\\" \\$P\"\nnonsense\nE=a=b\nF=$\nG=$1${\nA=2\n";
        let read: Vec<_> = parse_file(text, &base);
        let want = [
            ("A", "1"),
            ("B", "/root/x:/bin"),
            ("C", "$HOME"),
            ("D", "it's \"/bin\" $P"),
            ("E", "a=b"),
            ("F", "$"),
            ("G", "$1${"),
            ("A", "2"),
        ];
        assert_eq!(read, want.map(|(k, v)| (OsString::from(k), OsString::from(v))));
    }
}
