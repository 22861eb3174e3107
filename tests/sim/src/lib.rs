//! The real controller on the real embedded API, with everything else simulated: users, node,
//! daemons, network, time, and names, on one thread, all of it following from one seed.
//!
//! A [`story::Story`] is a list of what users do and what goes wrong, each at its time.
//! [`run::run`] plays it, reads the whole history of the API against the [`invariants`], waits for
//! rest, and checks that rest is what it should be. [`shrink::shrink`] makes a failing story short.

pub mod daemons;
pub mod history;
pub mod invariants;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod network;
pub mod node;
pub mod paths;
pub mod process;
pub mod report;
pub mod rest;
pub mod run;
pub mod shrink;
pub mod story;
pub mod surroundings;
pub mod user;
