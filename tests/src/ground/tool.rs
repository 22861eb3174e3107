//! Programs that the suite runs beside the platform.

use std::process::{Command, ExitStatus};

use anyhow::{Context as _, Result, ensure};
use programs::Ran;

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
    let Ran { line, output, read } = programs::run(command, stdin)?;
    read.with_context(|| format!("{line} does not read"))?;
    Ok(Said {
        line,
        status: output.status,
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
