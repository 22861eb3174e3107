//! The controller on the embedded API, with a node and daemons that the tests hold.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a test ends by a panic; the helpers here are no test functions, which is all that the lints know to spare"
)]

mod batches;
mod daemons;
mod fake;
mod fixtures;
mod health;
mod leaders;
mod losses;
mod platform;
mod pools;
mod refusals;
mod sandboxes;
mod upstream;
