//! Programs that the suite runs beside the platform.

use std::io::Write as _;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, ensure};

/// What a program said and how it ended.
#[derive(Debug)]
pub struct Said {
    /// The program and its arguments.
    pub line: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Said {
    /// The output, or an error with all that was said.
    pub fn ok(self) -> Result<String> {
        ensure!(self.status.success(), "{} ended with {}: {}{}", self.line, self.status, self.out, self.err);
        Ok(self.out)
    }

    /// What was said, or an error if the program did what should have been refused.
    pub fn refused(self) -> Result<String> {
        ensure!(!self.status.success(), "{} was not refused: {}", self.line, self.out);
        Ok(format!("{}{}", self.out, self.err))
    }
}

/// Runs a program with what it reads from its standard input.
pub fn says(command: &mut Command, stdin: &str) -> Result<Said> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    // What is written stays below a pipe's size or is read before anything is printed.
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(stdin.as_bytes()).with_context(|| format!("{name} does not read"))?;
    }
    let output = child.wait_with_output().with_context(|| format!("cannot wait for {name}"))?;
    Ok(Said {
        line,
        status: output.status,
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Whether a program is on the path.
pub fn has(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}
