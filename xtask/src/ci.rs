//! `cargo xtask ci`: what a change must pass.

use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Args, Parser};

use crate::{cargo, chart, demo, generate, images};

/// What CI may be told.
#[derive(Args)]
pub struct Options {
    /// Leave the release build, the images and the demo out.
    #[arg(long)]
    quick: bool,
}

type Step = (&'static str, fn() -> Result<()>);

/// What is cheap to say no to comes first.
const CHECKS: [Step; 5] = [
    ("cargo fmt --all --check", || cargo::run(&mut cargo::cargo(&["fmt", "--all", "--check"]))),
    ("cargo clippy --workspace --all-targets -- --deny warnings", || {
        cargo::run(&mut cargo::cargo(&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))
    }),
    ("cargo xtask generate --check", || generate::run(&generate::Options::check())),
    ("cargo xtask chart --check", || chart::run(&chart::Options::check())),
    ("cargo test --workspace", || cargo::run(&mut cargo::cargo(&["test", "--workspace"]))),
];

const RELEASE: [Step; 3] = [
    ("cargo xtask images --check", || images::run(&parsed(&["images", "--check"])?)),
    ("cargo xtask chart", || chart::run(&parsed(&["chart"])?)),
    ("cargo xtask demo", || demo::run(&demo::Options::default())),
];

/// Runs the steps, says what each took, and ends at the first that fails.
pub fn run(options: &Options) -> Result<()> {
    let release: &[Step] = if options.quick { &[] } else { &RELEASE };
    let mut times = Vec::new();
    for (name, step) in CHECKS.iter().chain(release) {
        println!("== {name}");
        let begun = Instant::now();
        let done = step().with_context(|| format!("{name} failed"));
        times.push(format!("{:6.1} s  {name}", begun.elapsed().as_secs_f64()));
        if let Err(error) = done {
            println!("{}", times.join("\n"));
            return Err(error);
        }
    }
    println!("{}", times.join("\n"));
    Ok(())
}

/// A chore's options, as its command line gives them.
fn parsed<T: Args>(words: &[&str]) -> Result<T> {
    #[derive(Parser)]
    struct Chore<T: Args> {
        #[command(flatten)]
        options: T,
    }
    Ok(Chore::<T>::try_parse_from(words)?.options)
}
