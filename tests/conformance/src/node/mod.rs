//! The node half. `node/cases/*.yaml` hold pods, `node/recordings/*.json` what a kubelet made of their status, and
//! `node/differences.yaml` where the embedded node means to say otherwise, and why.

mod case;
mod embedded;
mod ground;
mod image;
mod moment;
mod normal;
mod run;
mod step;

use std::path::PathBuf;

pub use case::{Case, cases};
pub use embedded::Embedded;
pub use ground::Ground;
pub use run::{Account, Judge, run};

/// The folder of cases, recordings and the table of differences.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("node")
}
