//! Programs of others, as the chores and the tests run them: whether they are there, and what they say.

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result};

/// A program that has run.
#[derive(Debug)]
pub struct Ran {
    /// The program and its arguments.
    pub line: String,
    /// How it ended, and what it printed.
    pub output: Output,
    /// Whether it read all of its input.
    pub read: io::Result<()>,
}

/// Runs a program with what it reads from its standard input.
///
/// # Errors
///
/// When it cannot be started, or waited for.
pub fn run(command: &mut Command, input: &str) -> Result<Ran> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let stdin = child.stdin.take();
    let (output, read) = std::thread::scope(|scope| {
        // It may print before it has read everything.
        let written = scope.spawn(move || stdin.map_or(Ok(()), |mut pipe| pipe.write_all(input.as_bytes())));
        let output = child.wait_with_output();
        (output, written.join().unwrap_or_else(|_| Err(io::Error::other("the writer panicked"))))
    });
    let output = output.with_context(|| format!("cannot wait for {name}"))?;
    Ok(Ran { line, output, read })
}

/// Whether a program is on the path.
pub fn has(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// Cargo, called by what cargo runs. What it told us of our own package is not for the next one: build scripts that
/// watch these variables (ring's does) would run again, and what depends on them be compiled again, each time somebody
/// else calls cargo.
pub fn cargo(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
    command
}
