//! What must hold whatever happens: nothing is lost, nothing is left. Here a tenth of everything; the whole,
//! which writes `docs/reliability/execd.md`, by
//! `cargo test --workspace --test reliability -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails should say where")]

#[path = "../common/mod.rs"]
mod common;
mod crash;
mod cuts;
mod guest;
mod held;
mod limits;
mod load;
mod report;
