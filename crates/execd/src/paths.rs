//! Paths as clients write them: a leading `~`, and variables only where no file has that very name.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use crate::envs::{Env, variable};

/// Why a path can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It is empty.
    #[error("the path is empty")]
    Empty,
    /// It has a zero byte.
    #[error("the path contains a zero byte")]
    Zero,
    /// It names a variable that is not set.
    #[error("the path names the variable {0}, which is not set")]
    Unset(String),
}

/// The absolute path of a file. Names with a dollar sign are taken as they are, but for a leading
/// variable such as `$HOME/x`.
///
/// # Errors
/// See [`PathError`].
pub fn file_path(text: &str, env: &Env, cwd: &Path) -> Result<PathBuf, PathError> {
    check(text)?;
    let literal = absolute(Path::new(text), cwd);
    if !text.starts_with(['~', '$']) || std::fs::symlink_metadata(&literal).is_ok() {
        return Ok(literal);
    }
    let expanded = match text.as_bytes() {
        [b'$', rest @ ..] => match variable(rest) {
            Some((name, after)) if after.is_empty() || after.starts_with(b"/") => {
                let mut path = lookup(name, env)?.as_bytes().to_vec();
                path.extend_from_slice(after);
                OsString::from_vec(path)
            }
            _ => text.into(),
        },
        _ => home(text, env),
    };
    Ok(absolute(Path::new(&expanded), cwd))
}

/// The absolute path of a working directory; variables count anywhere in it.
///
/// # Errors
/// See [`PathError`].
pub fn directory_path(text: &str, env: &Env, cwd: &Path) -> Result<PathBuf, PathError> {
    check(text)?;
    let home = home(text, env);
    let (mut out, mut rest) = (Vec::new(), home.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match variable(after).filter(|_| byte == b'$') {
            Some((name, after)) => {
                out.extend_from_slice(lookup(name, env)?.as_bytes());
                rest = after;
            }
            None => out.push(byte),
        }
    }
    Ok(absolute(Path::new(OsStr::from_bytes(&out)), cwd))
}

fn check(text: &str) -> Result<(), PathError> {
    match text {
        "" => Err(PathError::Empty),
        _ if text.contains('\0') => Err(PathError::Zero),
        _ => Ok(()),
    }
}

fn lookup<'e>(name: &[u8], env: &'e Env) -> Result<&'e OsString, PathError> {
    env.get(OsStr::from_bytes(name)).ok_or_else(|| PathError::Unset(String::from_utf8_lossy(name).into_owned()))
}

fn home(text: &str, env: &Env) -> OsString {
    match text.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            let mut path = env.get(OsStr::new("HOME")).cloned().unwrap_or_else(|| "/root".into());
            path.push(rest);
            path
        }
        _ => text.into(),
    }
}

/// Absolute and without `.` and `..`, by the text alone: `..` never climbs above the root.
fn absolute(path: &Path, cwd: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in cwd.join(path).components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::Normal(name) => out.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files() {
        let env: Env = [("HOME".into(), "/home/a".into()), ("W".into(), "/w".into())].into();
        let of = |text| file_path(text, &env, Path::new("/cwd"));
        for (text, want) in [
            ("/a/./b//c/", "/a/b/c"),
            ("x", "/cwd/x"),
            ("../../../etc/passwd", "/etc/passwd"),
            ("~", "/home/a"),
            ("~/x", "/home/a/x"),
            ("~bob/x", "/cwd/~bob/x"),
            ("$W/x", "/w/x"),
            ("${W}", "/w"),
            ("/a/$W", "/a/$W"),
            ("$1.txt", "/cwd/$1.txt"),
            ("$W.txt", "/cwd/$W.txt"),
        ] {
            assert_eq!(of(text), Ok(PathBuf::from(want)), "{text}");
        }
        assert_eq!(of(""), Err(PathError::Empty));
        assert_eq!(of("a\0b"), Err(PathError::Zero));
        assert_eq!(of("$NO/x"), Err(PathError::Unset("NO".into())));
    }

    #[test]
    fn directories() {
        let env: Env = [("HOME".into(), "/home/a".into()), ("W".into(), "w".into())].into();
        let of = |text| directory_path(text, &env, Path::new("/cwd"));
        assert_eq!(of("~/$W/${W}x"), Ok(PathBuf::from("/home/a/w/wx")));
        assert_eq!(of("$NO"), Err(PathError::Unset("NO".into())));
    }
}
