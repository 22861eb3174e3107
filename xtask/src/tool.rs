//! Programs of others: whether they are there, and what they say.

use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Whether a program is on the path.
pub fn has(program: &str) -> bool {
    let found =
        Command::new(program).arg("--help").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    !matches!(found, Err(error) if error.kind() == io::ErrorKind::NotFound)
}

/// What a program prints when it reads `input`, or an error with what it complained about.
pub fn said(command: &mut Command, input: &str) -> Result<String> {
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
    let output = std::thread::scope(|scope| {
        // It may print before it has read everything. Who does not read has a reason, which it tells.
        scope.spawn(move || stdin.map(|mut pipe| pipe.write_all(input.as_bytes())));
        child.wait_with_output()
    });
    let output = output.with_context(|| format!("cannot wait for {name}"))?;
    if !output.status.success() {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        bail!("{line} ended with {}: {}{}", output.status, text(&output.stdout), text(&output.stderr));
    }
    String::from_utf8(output.stdout).with_context(|| format!("{name} does not print UTF-8"))
}
