//! What runs found, written down by the runs: a table that every run adds a line to.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

const HEAD: &str = "\
# The controller under simulation

`cargo xtask sim` plays stories against the real controller on the real embedded API: users, a node, daemons, the network,
time and names are simulated, on one thread, and follow from a seed. Every line below was written by the run it tells of
(`--report FILE`). A story breaks a rule or none; the rules are in `tests/sim/src/invariants.rs` and `tests/sim/src/rest.rs`.

*Faults* are steps of a story that no user takes: crashes at writes, lost and refused writes, stale and cut watches, paused
controllers, failed, restarted and deleted pods, lost nodes, daemons that hang or refuse, clock steps. *Writes* are the
requests other than reads that controllers sent, leases and events apart.

## Runs

| Date | Commit | What | Stories | Changes | Claims | Faults | Writes | Broken | Wall time |
|---|---|---|---:|---:|---:|---:|---:|---:|---:|
<!-- end of runs -->
";

const END_OF_RUNS: &str = "<!-- end of runs -->";
const GUARDS: &str = "\n## Guards taken away\n";

/// What a run counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sums {
    /// Stories played.
    pub stories: u64,
    /// Changes of objects.
    pub changes: u64,
    /// Pods given to sandboxes.
    pub claims: u64,
    /// Steps that no user takes.
    pub faults: u64,
    /// Writes that controllers sent.
    pub writes: u64,
    /// Stories that broke a rule.
    pub broken: u64,
}

impl Sums {
    /// Counts another run's too.
    pub fn add(&mut self, other: &Self) {
        self.stories += other.stories;
        self.changes += other.changes;
        self.claims += other.claims;
        self.faults += other.faults;
        self.writes += other.writes;
        self.broken += other.broken;
    }
}

/// Adds the line of a run.
pub fn add_run(file: &Path, commit: &str, what: &str, sums: &Sums, took: Duration) -> Result<()> {
    let text = read(file)?;
    let Some(at) = text.find(END_OF_RUNS) else { bail!("{} has no table of runs", file.display()) };
    let Sums { stories, changes, claims, faults, writes, broken } = sums;
    let line = format!(
        "| {} | {commit} | {what} | {stories} | {changes} | {claims} | {faults} | {writes} | {broken} | {} |\n",
        today(),
        minutes(took)
    );
    write(file, &format!("{}{line}{}", &text[..at], &text[at..]))
}

/// What became of one guard's removal.
#[derive(Debug, Clone)]
pub struct Removal {
    /// Name of the guard.
    pub guard: String,
    /// What it does.
    pub does: &'static str,
    /// The rule that broke, and the stories it took; or that none did.
    pub caught: Option<(&'static str, u64)>,
    /// Stories played.
    pub played: u64,
}

/// Writes the table of guards, in place of the one before.
pub fn set_guards(file: &Path, commit: &str, removals: &[Removal], took: Duration) -> Result<()> {
    let text = read(file)?;
    let mut text = text.split(GUARDS).next().unwrap_or_default().to_owned();
    let caught = removals.iter().filter(|r| r.caught.is_some()).count();
    write!(
        text,
        "{GUARDS}\n`cargo xtask mutants` takes one guard of the controller away at a time and plays stories until a rule breaks. {}, \
         commit {commit}: {caught} of {} removals were caught, in {}.\n\n\
         | Guard | What it does | Rule that breaks without it | Stories until then |\n|---|---|---|---:|\n",
        today(),
        removals.len(),
        minutes(took)
    )?;
    for Removal { guard, does, caught, played } in removals {
        match caught {
            Some((rule, after)) => writeln!(text, "| {guard} | {does} | {rule} | {after} |")?,
            None => writeln!(text, "| {guard} | {does} | **not caught** | more than {played} |")?,
        }
    }
    write(file, &text)
}

fn read(file: &Path) -> Result<String> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(HEAD.to_owned()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

fn write(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

fn today() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d").to_string()
}

fn minutes(took: Duration) -> String {
    format!("{} min {} s", took.as_secs() / 60, took.as_secs() % 60)
}
