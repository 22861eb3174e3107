//! The API half. `api/cases/*.yaml` hold requests, `api/answers/*.json` what kube-apiserver answered, and
//! `api/differences.yaml` where the embedded API means to answer otherwise, and why.

mod case;
mod compare;
mod normal;
mod run;
mod table;

pub use case::{Case, Suite, suites};
pub use compare::{Difference, compare};
pub use run::{Answers, Ground, prepare, run, sweep};
pub use table::Table;

use std::path::PathBuf;

/// The folder of cases, answers, definitions and the table of differences.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("api")
}
