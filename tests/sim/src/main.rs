//! `cargo xtask sim`: plays the stories of many seeds.

use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use sim::network::WriteFault;
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
    let next = AtomicU64::new(options.seeds.start);
    let failed: Mutex<Vec<(u64, String)>> = Mutex::default();
    let sums = Mutex::new((0_u64, 0_u64, 0_u64));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.jobs.max(1))
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    while failed.lock().len() < options.failures {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= options.seeds.end {
                            break;
                        }
                        let stories = if options.crashes { crashes(seed)? } else { vec![Story::of(seed)] };
                        for story in stories {
                            let Outcome { violation, history, claims, .. } = run(&story)?;
                            if let Some(violation) = violation {
                                bar.suspend(|| println!("seed {seed}: {violation}"));
                                if options.crashes {
                                    bar.suspend(|| print!("{story}"));
                                }
                                failed.lock().push((seed, violation.to_string()));
                            }
                            let mut sums = sums.lock();
                            sums.0 += 1;
                            sums.1 += history.len() as u64;
                            sums.2 += claims as u64;
                        }
                        bar.inc(1);
                    }
                    Ok(())
                })
            })
            .collect();
        workers.into_iter().try_for_each(|w| w.join().map_err(|_| anyhow::anyhow!("a run panicked"))?)
    })
    .context("cannot play")?;
    bar.finish_and_clear();
    let (stories, changes, claims) = *sums.lock();
    let failed = failed.into_inner();
    println!(
        "{} seeds, {stories} stories, {changes} changes, {claims} claims, {} failed",
        bar.position(),
        failed.len()
    );
    match failed.first() {
        None => Ok(ExitCode::SUCCESS),
        Some((seed, _)) => {
            if !options.crashes {
                println!("cargo xtask sim --replay {seed} tells the story");
            }
            Ok(ExitCode::FAILURE)
        }
    }
}
