//! What programs of others say.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
pub use programs::has;

/// What a program prints when it reads `input`, or an error with what it complained about.
pub fn said(command: &mut Command, input: &str) -> Result<String> {
    // Who does not read all of it has a reason, which it tells.
    let programs::Ran { line, output, .. } = programs::run(command, input)?;
    if !output.status.success() {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        bail!("{line} ended with {}: {}{}", output.status, text(&output.stdout), text(&output.stderr));
    }
    String::from_utf8(output.stdout).with_context(|| format!("{line} does not print UTF-8"))
}
