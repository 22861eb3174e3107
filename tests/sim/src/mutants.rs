//! Takes guards of the controller away, one at a time, and plays stories until a rule breaks.

use controller::guard::{self, Guard};

use crate::network::WriteFault;
use crate::report::Removal;
use crate::run::run;
use crate::story::{Act, Step, Story};

/// Plays up to `stories` stories without each guard whose name contains `filter`.
pub fn all(stories: u64, filter: &str, mut told: impl FnMut(&Removal)) -> std::io::Result<Vec<Removal>> {
    let wanted = guard::ALL.iter().filter(|(guard, _)| format!("{guard:?}").contains(filter));
    let removals = wanted.map(|(guard, does)| {
        let removal = without(*guard, does.trim(), stories);
        removal.iter().for_each(&mut told);
        removal
    });
    removals.collect()
}

fn without(guard: Guard, does: &'static str, stories: u64) -> std::io::Result<Removal> {
    let mut removal = Removal { guard: format!("{guard:?}"), does, caught: None, played: 0 };
    for seed in 0..stories {
        removal.played += 1;
        guard::remove(Some(guard));
        let outcome = run(&story(seed));
        guard::remove(None);
        if let Some(violation) = outcome?.violation {
            removal.caught = Some((violation.rule, removal.played));
            break;
        }
    }
    Ok(removal)
}

/// Every other story has two controllers and a leader that stops while it writes: some guards are for nothing else.
fn story(seed: u64) -> Story {
    let mut story = Story::of(seed);
    if seed % 2 == 1 {
        story.controllers = 2;
        let mut rng = crate::surroundings::chance(seed, "leaders");
        for _ in 0..3 {
            let at = rng.u32(..30_000);
            let late =
                Act::Write { controller: 0, skip: rng.u32(..4), fault: WriteFault::Late(rng.u32(5_000..40_000)) };
            story.steps.push(Step { at, act: late });
            let pause = Act::Pause { controller: rng.u8(..2), millis: rng.u32(10_000..40_000) };
            story.steps.push(Step { at: at + rng.u32(..1_000), act: pause });
        }
        story.steps.sort_by_key(|step| step.at);
    }
    story
}
