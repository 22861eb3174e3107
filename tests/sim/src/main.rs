//! `cargo xtask sim`: plays the stories of many seeds.

use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use sim::network::WriteFault;
use sim::paths;
use sim::report::{self, Sums};
use sim::run::{Outcome, line, run};
use sim::shrink::shrink;
use sim::story::{Act, Step, Story};

/// Runs that one failing story may be shortened with.
const SHRINK_RUNS: usize = 400;

/// Plays stories of users and faults against the real controller, and checks every rule on the way.
#[derive(Debug, Parser)]
struct Options {
    /// Seeds, `A..B`.
    #[arg(long, default_value = "0..2000", value_parser = range)]
    seeds: Range<u64>,
    /// Plays one seed twice, prints its story and history, and shortens it when it fails.
    #[arg(long)]
    replay: Option<u64>,
    /// Plays each seed's users without trouble, and then with a crash before and after each write of the controller.
    #[arg(long, conflicts_with = "replay")]
    crashes: bool,
    /// Plays for each seed two ways to the same wishes, and compares what comes to rest.
    #[arg(long, conflicts_with_all = ["replay", "crashes"])]
    paths: bool,
    /// Takes away each guard of the controller whose name has this in it, and plays the stories of the seeds up to the
    /// end of `--seeds` until a rule breaks.
    #[cfg(feature = "mutants")]
    #[arg(long, num_args = 0..=1, default_missing_value = "")]
    mutants: Option<String>,
    /// File that the result is written into.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Commit that this was built from, for the report.
    #[arg(long, default_value = "unknown")]
    commit: String,
    /// Stories played at once; each has a thread of its own.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    jobs: usize,
    /// Failures after which no more seeds are played.
    #[arg(long, default_value_t = 5)]
    failures: usize,
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("not of the form A..B")?;
    let number = |t: &str| t.parse::<u64>().map_err(|e| format!("{t}: {e}"));
    Ok(number(from)?..number(to)?)
}

fn main() -> Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "off".into()))
        .with_writer(std::io::stderr)
        .without_time()
        .init();
    let options = Options::parse();
    #[cfg(feature = "mutants")]
    if let Some(filter) = &options.mutants {
        return mutants(&options, filter);
    }
    match options.replay {
        Some(seed) => replay(seed),
        None => sweep(&options),
    }
}

fn replay(seed: u64) -> Result<ExitCode> {
    let story = Story::of(seed);
    print!("{story}");
    let (outcome, again) = (run(&story)?, run(&story)?);
    outcome.history.iter().for_each(|change| println!("{}", line(change)));
    println!("{} changes, {} claims, {:?} simulated", outcome.history.len(), outcome.claims, outcome.lasted);
    if outcome.trace() != again.trace() {
        let differs = outcome.history.iter().zip(&again.history).find(|(a, b)| line(a) != line(b));
        println!("two runs differ");
        if let Some((a, b)) = differs {
            println!("first:  {}\nsecond: {}", line(a), line(b));
        }
        return Ok(ExitCode::FAILURE);
    }
    let Some(violation) = &outcome.violation else {
        println!("every rule holds");
        return Ok(ExitCode::SUCCESS);
    };
    println!("BROKEN  {violation}");
    let short = shrink(&story, violation, SHRINK_RUNS)?;
    let outcome = run(&short)?;
    println!("\nthe same in short:\n{short}");
    outcome.history.iter().for_each(|change| println!("{}", line(change)));
    outcome.violation.iter().for_each(|v| println!("BROKEN  {v}"));
    Ok(ExitCode::FAILURE)
}

#[cfg(feature = "mutants")]
fn mutants(options: &Options, filter: &str) -> Result<ExitCode> {
    let begun = Instant::now();
    let removals = sim::mutants::all(options.seeds.end, filter, |removal| match removal.caught {
        Some((rule, after)) => println!("{:<18} caught by {rule:?} after {after} stories", removal.guard),
        None => println!("{:<18} NOT CAUGHT in {} stories", removal.guard, removal.played),
    })?;
    if let Some(file) = &options.report {
        report::set_guards(file, &options.commit, &removals, begun.elapsed())?;
    }
    let missed = removals.iter().filter(|r| r.caught.is_none()).count();
    println!("{} guards, {missed} not caught", removals.len());
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Plays both ways of a seed; what is wrong with them, if anything.
fn differ(seed: u64, sums: &mut Sums) -> Result<Option<String>> {
    let (straight, wandering) = paths::pair(seed);
    let mut shapes = Vec::new();
    for story in [&straight, &wandering] {
        let outcome = run(story)?;
        add(sums, story, &outcome);
        if let Some(violation) = outcome.violation {
            return Ok(Some(format!("{violation}\n{story}")));
        }
        shapes.push(paths::shape(&outcome.history));
    }
    if shapes[0] == shapes[1] {
        return Ok(None);
    }
    Ok(Some(format!("two ways end differently:\n{:#?}\n{:#?}\n{wandering}", shapes[0], shapes[1])))
}

fn add(sums: &mut Sums, story: &Story, outcome: &Outcome) {
    sums.stories += 1;
    sums.changes += outcome.history.len() as u64;
    sums.claims += outcome.claims as u64;
    sums.faults += story.steps.iter().filter(|step| step.act.is_fault()).count() as u64;
    sums.writes += outcome.writes;
    sums.broken += u64::from(outcome.violation.is_some());
}

/// The stories of one seed in which the controller ends at each of its writes.
fn crashes(seed: u64) -> Result<Vec<Story>> {
    let calm = Story::calm(seed);
    let writes = run(&calm)?.writes;
    let at = |skip: u64, fault| {
        let skip = u32::try_from(skip).unwrap_or(u32::MAX);
        calm.with(Step { at: 0, act: Act::Write { controller: 0, skip, fault } })
    };
    let both = |n| [at(n, WriteFault::CrashBefore), at(n, WriteFault::CrashAfter)];
    Ok(std::iter::once(calm.clone()).chain((0..writes).flat_map(both)).collect())
}

fn sweep(options: &Options) -> Result<ExitCode> {
    let total = options.seeds.end.saturating_sub(options.seeds.start);
    let bar = ProgressBar::new(total)
        .with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {per_sec}, {eta} left, {msg}")?);
    let begun = Instant::now();
    let next = AtomicU64::new(options.seeds.start);
    let failed: Mutex<Vec<u64>> = Mutex::default();
    let sums = Mutex::new(Sums::default());
    let fail = |seed: u64, words: &str| {
        bar.suspend(|| println!("seed {seed}: {words}"));
        failed.lock().push(seed);
    };
    let one = |seed: u64| -> Result<()> {
        let mut own = Sums::default();
        if options.paths {
            if let Some(words) = differ(seed, &mut own)? {
                own.broken = 1;
                fail(seed, &words);
            }
        } else {
            let stories = if options.crashes { crashes(seed)? } else { vec![Story::of(seed)] };
            for story in stories {
                let outcome = run(&story)?;
                add(&mut own, &story, &outcome);
                match &outcome.violation {
                    Some(violation) if options.crashes => fail(seed, &format!("{violation}\n{story}")),
                    Some(violation) => fail(seed, &violation.to_string()),
                    None => {}
                }
            }
        }
        sums.lock().add(&own);
        bar.inc(1);
        Ok(())
    };
    std::thread::scope(|scope| {
        let work = || -> Result<()> {
            while failed.lock().len() < options.failures {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= options.seeds.end {
                    break;
                }
                one(seed)?;
            }
            Ok(())
        };
        let workers: Vec<_> = (0..options.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|w| w.join().map_err(|_| anyhow::anyhow!("a run panicked"))?)
    })
    .context("cannot play")?;
    let played = bar.position();
    bar.finish_and_clear();
    let (sums, failed) = (sums.into_inner(), failed.into_inner());
    let Sums { stories, changes, claims, faults, writes, .. } = sums;
    println!(
        "{played} seeds, {stories} stories, {changes} changes, {claims} claims, {faults} faults, {writes} writes, {} failed",
        failed.len()
    );
    if let Some(file) = &options.report {
        let what = match options {
            Options { crashes: true, .. } => "a crash before and after every write of seeds",
            Options { paths: true, .. } => "two ways to the same wishes, seeds",
            _ => "seeds",
        };
        let end = options.seeds.start + played;
        let what = format!("{what} {}..{end}", options.seeds.start);
        report::add_run(file, &options.commit, &what, &sums, begun.elapsed())?;
    }
    match failed.first() {
        None => Ok(ExitCode::SUCCESS),
        Some(seed) => {
            if !options.crashes && !options.paths {
                println!("cargo xtask sim --replay {seed} tells the story");
            }
            Ok(ExitCode::FAILURE)
        }
    }
}
