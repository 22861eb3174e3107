//! The platform as its users have it: real containers, kubectl, `osb`, the published Python SDK.
//!
//! One list of cases for every ground. Without further ado they run on the embedded one, each on an `osb up` of its
//! own; `cargo xtask e2e` runs them on a cluster. What a ground cannot do is skipped with the reason.

mod case;
mod cases;
mod kit;
mod pools;
mod skips;
mod venv;

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use anyhow::Result;
use e2e::ground::Field;
use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Cases share the machine or the cluster, and some of them break it for a while.
    arguments.test_threads = Some(1);
    match trials(&arguments) {
        Ok(trials) => libtest_mimic::run(&arguments, trials).exit_code(),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

static WHOLE: OnceLock<bool> = OnceLock::new();

/// Whether every case runs, so that what none of them used is used by nobody.
fn whole_run() -> bool {
    WHOLE.get().copied().unwrap_or_default()
}

fn trials(arguments: &Arguments) -> Result<Vec<Trial>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build()?;
    let runtime = Arc::new(runtime);
    // A list needs no ground.
    let field = if arguments.list { Field::Embedded } else { runtime.block_on(Field::from_env())? };
    let field = Arc::new(field);
    let _ = WHOLE.set(arguments.filter.is_none() && arguments.skip.is_empty());
    let mut trials = vec![
        Trial::test("skips::the_documentation_lists_them", || Ok(skips::documented()?)),
        Trial::test("rbac::the_audit_log_is_understood", || Ok(cases::check_audit()?)),
    ];
    for case in cases::all() {
        let (runtime, field) = (Arc::clone(&runtime), Arc::clone(&field));
        trials.push(Trial::ignorable_test(case.name, move || {
            case.run(&runtime, &field).map_err(|error| format!("{error:#}").into())
        }));
    }
    Ok(trials)
}
