//! `cargo xtask ci`: what a change must pass.

use anyhow::Result;
use clap::Args;

use crate::{cargo, demo, generate};

/// What CI may be told.
#[derive(Args)]
pub struct Options {
    /// Leave the demo out.
    #[arg(long)]
    no_demo: bool,
}

/// Formatting, lints, generated files, tests, demo; the first failure ends it.
pub fn run(options: &Options) -> Result<()> {
    for step in [
        &["fmt", "--all", "--check"][..],
        &["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"],
        &["test", "--workspace"],
    ] {
        eprintln!("== cargo {}", step.join(" "));
        cargo::run(&mut cargo::cargo(step))?;
    }
    eprintln!("== generated files");
    generate::run(&generate::Options::check())?;
    if !options.no_demo {
        eprintln!("== demo");
        demo::run(&demo::Options::default())?;
    }
    Ok(())
}
