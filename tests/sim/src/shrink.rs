//! Makes a failing story short: steps that do not matter are left out.

use crate::invariants::Violation;
use crate::run::run;
use crate::story::Story;

/// The shortest story found that still breaks the same rule, within so many runs.
pub fn shrink(story: &Story, violation: &Violation, mut runs: usize) -> std::io::Result<Story> {
    let mut best = story.clone();
    let mut chunk = best.steps.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let mut shorter = false;
        while at < best.steps.len() && runs > 0 {
            let mut candidate = best.clone();
            candidate.steps.drain(at..(at + chunk).min(candidate.steps.len()));
            runs -= 1;
            let same = run(&candidate)?.violation.is_some_and(|found| found.rule == violation.rule);
            if same {
                best = candidate;
                shorter = true;
            } else {
                at += chunk;
            }
        }
        if runs == 0 || (chunk == 1 && !shorter) {
            return Ok(best);
        }
        chunk = (chunk / 2).max(1);
    }
}
