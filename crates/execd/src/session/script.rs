//! The words that a session's shell is given. It reads them from a pipe; what it answers goes to
//! another, never through the output of what it runs.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Text as one word of a shell.
pub fn quote(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 2);
    out.push(b'\'');
    for byte in bytes {
        match byte {
            b'\'' => out.extend_from_slice(b"'\\''"),
            byte => out.push(*byte),
        }
    }
    out.push(b'\'');
    out
}

/// Enters a directory.
pub fn enter(path: &Path) -> Vec<u8> {
    let mut out = b"command cd -- ".to_vec();
    out.extend_from_slice(&quote(path.as_os_str().as_bytes()));
    out.extend_from_slice(b" 2>/dev/null\n");
    out
}

/// Sets and exports a variable; none for a name that no shell takes.
pub fn export(name: &OsStr, value: &OsStr) -> Vec<u8> {
    let name = name.as_bytes();
    let valid = name.first().is_some_and(|c| c.is_ascii_alphabetic() || *c == b'_')
        && name.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'_');
    if !valid {
        return Vec::new();
    }
    let mut out = b"export ".to_vec();
    out.extend_from_slice(name);
    out.push(b'=');
    out.extend_from_slice(&quote(value.as_bytes()));
    out.push(b'\n');
    out
}

/// Where a shell finds a descriptor of ours.
pub fn descriptor(fd: i32) -> String {
    format!("/proc/{}/fd/{fd}", std::process::id())
}

/// Runs a command with its own output, then answers with its status and all exported variables between
/// two lines of `mark`.
pub fn run(command: &str, stdout: i32, stderr: i32, answer: i32, mark: &str) -> Vec<u8> {
    let mut out = b"command eval ".to_vec();
    out.extend_from_slice(&quote(command.as_bytes()));
    let redirected = format!(
        " </dev/null >{} 2>{}\n{{ command echo \"{mark} $?\"; command export -p; command echo; command echo {mark}; }} >{} 2>/dev/null\n",
        descriptor(stdout),
        descriptor(stderr),
        descriptor(answer),
    );
    out.extend_from_slice(redirected.as_bytes());
    out
}

/// What a shell answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status of the command.
    pub status: i32,
    /// Its exported variables, as text for the same shell.
    pub exports: Vec<u8>,
}

/// The answer between two lines of `mark`, once it is whole.
pub fn answer(bytes: &[u8], mark: &str) -> Option<Answer> {
    let rest = bytes.strip_prefix(format!("{mark} ").as_bytes())?;
    let line = rest.iter().position(|b| *b == b'\n')?;
    let (status, rest) = rest.split_at_checked(line)?;
    let end = format!("\n{mark}\n");
    let exports = rest.strip_suffix(end.as_bytes())?.get(1..).unwrap_or_default();
    let status = std::str::from_utf8(status).ok()?.trim().parse().ok()?;
    Some(Answer { status, exports: exports.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!(quote(b"it's $x `y`\n"), b"'it'\\''s $x `y`\n'");
        assert_eq!(export(OsStr::new("A"), OsStr::new("b c")), b"export A='b c'\n");
        assert_eq!(export(OsStr::new("A-B"), OsStr::new("x")), b"");
        assert_eq!(export(OsStr::new("1A"), OsStr::new("x")), b"");
    }

    #[test]
    fn answers() {
        let of = |text: &str| answer(text.as_bytes(), "m1");
        assert_eq!(of("m1 7\nexport A='m1'\n\nm1\n"), Some(Answer { status: 7, exports: b"export A='m1'\n".to_vec() }));
        for part in ["", "m1", "m1 7", "m1 7\nexport A='x'\n", "m2 7\n\nm2\n"] {
            assert_eq!(of(part), None, "{part:?}");
        }
        assert_eq!(of("m1 0\n\nm1\n").unwrap().exports, b"");
    }
}
